// SPDX-License-Identifier: Apache-2.0
#include "host_runner/cli/service_state.hpp"

#include <gmock/gmock.h>

namespace host_runner::cli {
namespace {

using namespace std::chrono_literals;
using Kind = instance::RunEvent::Kind;
using testing::HasSubstr;

std::string state(Kind kind, std::string text = {}, std::chrono::milliseconds limit = 0ms) {
    return service_state({kind, std::move(text), 0ms, limit});
}

TEST(ServiceState, is_ready_with_the_guest_and_not_before) {
    for (const auto kind : {Kind::created, Kind::started, Kind::progress, Kind::boot_error})
        EXPECT_THAT(state(kind, "x"), testing::Not(HasSubstr("READY"))) << to_string(kind);
    EXPECT_EQ(state(Kind::ready), "READY=1\nSTATUS=ready");
}

TEST(ServiceState, asks_for_the_time_of_each_step_of_a_stop) {
    EXPECT_EQ(state(Kind::stop_step, "guest API Shutdown", 30s),
              "STOPPING=1\nSTATUS=stopping: guest API Shutdown\nEXTEND_TIMEOUT_USEC=45000000");
}

TEST(ServiceState, asks_for_more_time_with_each_sign_of_progress) {
    EXPECT_EQ(state(Kind::progress, "data disk ready"),
              "STATUS=guest: data disk ready\nEXTEND_TIMEOUT_USEC=600000000");
}

TEST(ServiceState, lets_no_word_of_the_guest_be_more_than_a_word) {
    EXPECT_THAT(state(Kind::progress, "x\nREADY=1"), testing::Not(HasSubstr("\nREADY=1")));
}

TEST(ServiceState, has_nothing_to_say_of_small_things) {
    for (const auto kind : {Kind::warning, Kind::notice, Kind::port})
        EXPECT_EQ(state(kind, "x"), "");
}

} // namespace
} // namespace host_runner::cli

// SPDX-License-Identifier: Apache-2.0
#include "host_runner/hostapi/event_gate.hpp"

#include <gmock/gmock.h>

namespace host_runner::hostapi {
namespace {

using namespace std::chrono_literals;

constexpr EventGate::Clock::time_point start{};

/// A gate whose burst was used up at `start`.
EventGate used_up_gate() {
    EventGate gate;
    for (int i = 0; i < static_cast<int>(EventGate::burst); ++i)
        EXPECT_EQ(gate.pass(start), 0U);
    return gate;
}

TEST(EventGate, drops_what_comes_after_a_burst) {
    auto gate = used_up_gate();
    EXPECT_EQ(gate.pass(start), std::nullopt);
}

TEST(EventGate, passes_an_event_again_after_a_twentieth_of_a_second) {
    auto gate = used_up_gate();
    EXPECT_EQ(gate.pass(start + 49ms), std::nullopt);
    EXPECT_TRUE(gate.pass(start + 51ms));
}

TEST(EventGate, says_once_how_many_were_dropped) {
    auto gate = used_up_gate();
    for (int i = 0; i < 7; ++i)
        EXPECT_EQ(gate.pass(start), std::nullopt);
    EXPECT_EQ(gate.pass(start + 1s), 7U);
    EXPECT_EQ(gate.pass(start + 1s), 0U);
}

TEST(EventGate, saves_no_more_than_one_burst_in_a_quiet_time) {
    auto gate = used_up_gate();
    int passed = 0;
    while (gate.pass(start + 1h))
        ++passed;
    EXPECT_EQ(passed, static_cast<int>(EventGate::burst));
}

} // namespace
} // namespace host_runner::hostapi

// SPDX-License-Identifier: Apache-2.0
#include "host_runner/wasm/worker/counters.hpp"

#include <thread>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <gmock/gmock.h>

#include "host_runner/wasm/http_server.hpp"

namespace host_runner::wasm::worker {
namespace {

using protocol::CallStatus;
using protocol::World;
using testing::IsEmpty;

/// As a worker has it: a descriptor and a mapping of its own.
Counters attached(const Counters& counters, World world) {
    UniqueFd file(::fcntl(counters.fd(), F_DUPFD_CLOEXEC, 0));
    return Counters::attach(world, std::move(file)).value();
}

protocol::InvokeResult ended(CallStatus status, int code = 0) {
    protocol::InvokeResult result;
    result.status = status;
    result.code = code;
    return result;
}

TEST(Counters, begin_at_nothing_with_the_names_of_their_world) {
    EXPECT_THAT(Counters::create(World::command)->values(), IsEmpty());
    const auto http = Counters::create(World::wasi_http)->values();
    EXPECT_EQ(http.size(), http_kinds);
    EXPECT_EQ(http.at("out_of_memory"), 0U);
    const auto function = Counters::create(World::function)->values();
    for (const auto* name : {"call", "ok", "exit", "trap", "timeout", "oom", "limit", "cancelled",
                             "overloaded", "unavailable", "bad_request", "failed", "lost"})
        EXPECT_EQ(function.at(name), 0U) << name;
    EXPECT_EQ(function.size(), 13U);
}

TEST(Counters, are_the_same_on_both_sides_and_go_on_with_the_next_worker) {
    const auto counters = Counters::create(World::function).value();
    for (int restart = 0; restart < 2; ++restart) {
        const auto worker = attached(counters, World::function);
        std::thread other([&] {
            for (int i = 0; i < 1000; ++i)
                worker.add(call_counter);
        });
        for (int i = 0; i < 1000; ++i)
            worker.add(call_counter);
        other.join();
    }
    EXPECT_EQ(counters.values().at("call"), 4000U);
}

TEST(Counters, tell_a_success_from_another_exit_code) {
    const auto counters = Counters::create(World::function).value();
    counters.add(counter_of(ended(CallStatus::exit)));
    counters.add(counter_of(ended(CallStatus::exit, 1)));
    counters.add(counter_of(ended(CallStatus::exit, 255)));
    counters.add(counter_of(ended(CallStatus::trap)));
    const auto values = counters.values();
    EXPECT_EQ(values.at("ok"), 1U);
    EXPECT_EQ(values.at("exit"), 2U);
    EXPECT_EQ(values.at("trap"), 1U);
    EXPECT_EQ(values.at("failed"), 0U);
}

TEST(Counters, say_which_calls_a_worker_took_with_it) {
    const auto counters = Counters::create(World::function).value();
    for (int i = 0; i < 5; ++i)
        counters.add(call_counter);
    counters.add(counter_of(ended(CallStatus::exit)));
    counters.add(counter_of(ended(CallStatus::oom)));
    counters.count_lost();
    EXPECT_EQ(counters.values().at("lost"), 3U);
    counters.count_lost(); // nobody is missing now
    EXPECT_EQ(counters.values().at("lost"), 3U);
}

TEST(Counters, of_a_worker_that_lies_do_no_harm) {
    const auto counters = Counters::create(World::function).value();
    const auto worker = attached(counters, World::function);
    worker.add(counter_of(ended(CallStatus::trap))); // of a call that never came
    counters.count_lost();
    EXPECT_EQ(counters.values().at("lost"), 0U);
    // To read what is not there would end the agent.
    EXPECT_NE(::ftruncate(worker.fd(), 0), 0);
    EXPECT_NE(::ftruncate(worker.fd(), 1 << 20), 0);
    EXPECT_NE(::fcntl(worker.fd(), F_ADD_SEALS, F_SEAL_WRITE), 0);
}

TEST(Counters, of_http_have_no_lost_ones) {
    const auto counters = Counters::create(World::wasi_http).value();
    counters.add(static_cast<std::size_t>(HttpKind::connection));
    const auto before = counters.values();
    counters.count_lost();
    EXPECT_EQ(counters.values(), before);
}

TEST(Counters, need_a_file_to_attach_to) {
    EXPECT_FALSE(Counters::attach(World::function, UniqueFd()));
}

} // namespace
} // namespace host_runner::wasm::worker

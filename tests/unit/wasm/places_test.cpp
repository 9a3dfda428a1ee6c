// SPDX-License-Identifier: Apache-2.0
#include "places.hpp"

#include <atomic>
#include <mutex>
#include <thread>
#include <vector>

#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include <gmock/gmock.h>

namespace host_runner::wasm {
namespace {

using Clock = std::chrono::steady_clock;
using Taken = Places::Taken;

Places::TimePoint in(std::chrono::milliseconds time) {
    return Clock::now() + time;
}

Places::TimePoint late() {
    return in(std::chrono::minutes(2));
}

/// Until that many callers wait, and so their order is known.
void await_waiting(const Places& places, std::size_t count) {
    while (places.waiting() != count)
        std::this_thread::yield();
}

TEST(Places, are_given_at_once_while_there_are_any) {
    Places places(2);
    EXPECT_EQ(places.take(Clock::now(), -1).value(), Taken::taken);
    EXPECT_EQ(places.take(Clock::now(), -1).value(), Taken::taken);
    EXPECT_EQ(places.take(Clock::now(), -1).value(), Taken::timed_out);
    places.give_back();
    EXPECT_EQ(places.take(Clock::now(), -1).value(), Taken::taken);
}

TEST(Places, go_to_those_who_wait_in_their_order) {
    constexpr int callers = 8;
    Places places(1);
    ASSERT_EQ(places.take(late(), -1).value(), Taken::taken);
    std::mutex mutex;
    std::vector<int> order;
    std::vector<std::thread> threads;
    for (int caller = 0; caller < callers; ++caller) {
        threads.emplace_back([&, caller] {
            EXPECT_EQ(places.take(late(), -1).value(), Taken::taken);
            {
                const std::lock_guard lock(mutex);
                order.push_back(caller);
            }
            places.give_back();
        });
        await_waiting(places, static_cast<std::size_t>(caller) + 1);
    }
    places.give_back();
    for (auto& thread : threads)
        thread.join();
    EXPECT_THAT(order, testing::ElementsAre(0, 1, 2, 3, 4, 5, 6, 7));
}

TEST(Places, are_not_taken_from_under_who_waits) {
    Places places(1);
    ASSERT_EQ(places.take(late(), -1).value(), Taken::taken);
    const UniqueFd go(::eventfd(0, EFD_CLOEXEC));
    std::thread waiter([&] {
        EXPECT_EQ(places.take(late(), -1).value(), Taken::taken);
        std::uint64_t count = 0;
        EXPECT_EQ(::read(go.get(), &count, sizeof count), 8);
        places.give_back();
    });
    await_waiting(places, 1);
    places.give_back();
    // It belongs to the waiter now, whether that one has run yet or not.
    EXPECT_EQ(places.take(Clock::now(), -1).value(), Taken::timed_out);
    const std::uint64_t one = 1;
    EXPECT_EQ(::write(go.get(), &one, sizeof one), 8);
    waiter.join();
    EXPECT_EQ(places.take(Clock::now(), -1).value(), Taken::taken);
}

TEST(Places, pass_over_who_was_cancelled_or_came_to_the_end_of_its_time) {
    Places places(1);
    ASSERT_EQ(places.take(late(), -1).value(), Taken::taken);
    const UniqueFd cancel(::eventfd(0, EFD_CLOEXEC));
    std::thread cancelled(
        [&] { EXPECT_EQ(places.take(late(), cancel.get()).value(), Taken::cancelled); });
    await_waiting(places, 1);
    std::thread patient([&] { EXPECT_EQ(places.take(late(), -1).value(), Taken::taken); });
    await_waiting(places, 2);
    EXPECT_EQ(places.take(in(std::chrono::milliseconds(5)), -1).value(), Taken::timed_out);
    const std::uint64_t one = 1;
    EXPECT_EQ(::write(cancel.get(), &one, sizeof one), 8);
    cancelled.join();
    EXPECT_EQ(places.waiting(), 1U);
    places.give_back();
    patient.join();
    EXPECT_EQ(places.waiting(), 0U);
}

TEST(Places, say_when_there_is_no_descriptor_to_wait_with) {
    Places places(1);
    ASSERT_EQ(places.take(late(), -1).value(), Taken::taken);
    rlimit before{};
    ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
    const rlimit none{0, before.rlim_max};
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
    const auto taken = places.take(late(), -1);
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
    ASSERT_FALSE(taken);
    EXPECT_EQ(taken.error().code, ErrorCode::resource_exhausted);
}

TEST(Places, are_never_more_than_there_are) {
    constexpr int threads_count = 8;
    constexpr int rounds = 500;
    Places places(3);
    std::atomic<int> inside = 0;
    std::atomic<int> most = 0;
    std::vector<std::thread> threads;
    for (int i = 0; i < threads_count; ++i)
        threads.emplace_back([&, i] {
            for (int round = 0; round < rounds; ++round) {
                // Some give up early, so that leaving the queue meets being served.
                const auto until = (round + i) % 3 == 0 ? in(std::chrono::milliseconds(0)) : late();
                if (places.take(until, -1).value() != Taken::taken)
                    continue;
                const int now = ++inside;
                for (int seen = most; seen < now && !most.compare_exchange_weak(seen, now);) {
                }
                --inside;
                places.give_back();
            }
        });
    for (auto& thread : threads)
        thread.join();
    EXPECT_LE(most, 3);
    for (int i = 0; i < 3; ++i)
        EXPECT_EQ(places.take(Clock::now(), -1).value(), Taken::taken);
    EXPECT_EQ(places.take(Clock::now(), -1).value(), Taken::timed_out);
}

} // namespace
} // namespace host_runner::wasm

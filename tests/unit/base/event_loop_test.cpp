// SPDX-License-Identifier: Apache-2.0
#include "host_runner/base/event_loop.hpp"

#include <array>
#include <csignal>
#include <string>
#include <thread>

#include <fcntl.h>
#include <unistd.h>

#include <gtest/gtest.h>

namespace host_runner {
namespace {

using namespace std::chrono_literals;

class EventLoopTest : public testing::Test {
protected:
    void SetUp() override {
        auto made = EventLoop::create();
        ASSERT_TRUE(made);
        loop = std::move(*made);
        std::array<int, 2> fds{};
        ASSERT_EQ(::pipe2(fds.data(), O_CLOEXEC | O_NONBLOCK), 0);
        reader.reset(fds[0]);
        writer.reset(fds[1]);
    }
    std::unique_ptr<EventLoop> loop;
    UniqueFd reader, writer;
};

TEST_F(EventLoopTest, calls_back_for_a_readable_descriptor) {
    std::uint32_t seen = 0;
    ASSERT_TRUE(loop->watch(reader.get(), EPOLLIN, [&](std::uint32_t events) {
        seen = events;
        loop->stop();
    }));
    ASSERT_EQ(::write(writer.get(), "x", 1), 1);
    ASSERT_TRUE(loop->run());
    EXPECT_EQ(seen, static_cast<std::uint32_t>(EPOLLIN));
}

TEST_F(EventLoopTest, silences_a_descriptor_that_another_callback_unwatched_in_the_same_round) {
    std::array<int, 2> other{};
    ASSERT_EQ(::pipe2(other.data(), O_CLOEXEC), 0);
    const UniqueFd other_reader(other[0]);
    const UniqueFd other_writer(other[1]);
    int calls = 0;
    const auto callback = [&](int partner) {
        return [&, partner](std::uint32_t) {
            ++calls;
            loop->unwatch(partner);
            loop->stop();
        };
    };
    ASSERT_TRUE(loop->watch(reader.get(), EPOLLIN, callback(other_reader.get())));
    ASSERT_TRUE(loop->watch(other_reader.get(), EPOLLIN, callback(reader.get())));
    ASSERT_EQ(::write(writer.get(), "x", 1), 1);
    ASSERT_EQ(::write(other_writer.get(), "x", 1), 1);
    ASSERT_TRUE(loop->run());
    EXPECT_EQ(calls, 1);
}

TEST_F(EventLoopTest, lets_a_callback_unwatch_itself) {
    ASSERT_TRUE(
        loop->watch(reader.get(), EPOLLIN, [this, text = std::string(100, 'x')](std::uint32_t) {
            loop->unwatch(reader.get());
            EXPECT_EQ(text.size(), 100U); // the closure is still alive
            loop->stop();
        }));
    ASSERT_EQ(::write(writer.get(), "x", 1), 1);
    ASSERT_TRUE(loop->run());
}

TEST_F(EventLoopTest, fires_timers_in_order_and_skips_cancelled_ones) {
    std::string order;
    loop->call_after(4ms, [&] {
        order += 'c';
        loop->stop();
    });
    const auto cancelled = loop->call_after(1ms, [&] { order += 'x'; });
    loop->call_after(1ms, [&] { order += 'a'; });
    loop->call_after(2ms, [&] { order += 'b'; });
    loop->cancel(cancelled);
    ASSERT_TRUE(loop->run());
    EXPECT_EQ(order, "abc");
}

TEST_F(EventLoopTest, runs_a_timer_that_was_added_by_a_timer) {
    int count = 0;
    std::function<void()> again = [&] {
        if (++count == 3)
            loop->stop();
        else
            loop->call_after(0ms, again);
    };
    loop->call_after(0ms, again);
    ASSERT_TRUE(loop->run());
    EXPECT_EQ(count, 3);
}

TEST_F(EventLoopTest, runs_what_other_threads_post_on_its_own_thread) {
    const auto own = std::this_thread::get_id();
    bool same = false;
    std::thread other([&] {
        loop->post([&] {
            same = std::this_thread::get_id() == own;
            loop->stop();
        });
    });
    ASSERT_TRUE(loop->run());
    other.join();
    EXPECT_TRUE(same);
}

TEST_F(EventLoopTest, delivers_signals_as_calls) {
    int seen = 0;
    ASSERT_TRUE(loop->watch_signals({SIGUSR1}, [&](int signal) {
        seen = signal;
        loop->stop();
    }));
    ::raise(SIGUSR1);
    ASSERT_TRUE(loop->run());
    EXPECT_EQ(seen, SIGUSR1);
}

TEST_F(EventLoopTest, refuses_to_watch_a_descriptor_twice) {
    ASSERT_TRUE(loop->watch(reader.get(), EPOLLIN, [](std::uint32_t) {}));
    EXPECT_EQ(loop->watch(reader.get(), EPOLLIN, [](std::uint32_t) {}).error().code,
              ErrorCode::already_exists);
}

} // namespace
} // namespace host_runner

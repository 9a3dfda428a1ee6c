// SPDX-License-Identifier: Apache-2.0
#pragma once

/// One thread, one loop: descriptors, timers, signals, child processes (by pidfd) and work posted
/// by other threads.
///
///     HR_TRY(auto loop, EventLoop::create());
///     HR_CHECK(loop->watch(fd, EPOLLIN, [&](std::uint32_t events) { ... }));
///     loop->call_after(std::chrono::seconds(5), [&] { loop->stop(); });
///     HR_CHECK(loop->run());
///
/// All members are for the loop's own thread, except post(). Callbacks may add and remove anything,
/// themselves too. A callback must not throw.

#include <chrono>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include <signal.h>
#include <sys/epoll.h>

#include "host_runner/base/error.hpp"
#include "host_runner/base/unique_fd.hpp"

namespace host_runner {

class EventLoop {
public:
    using Clock = std::chrono::steady_clock;
    using TimerId = std::uint64_t;
    using FdCallback = std::function<void(std::uint32_t events)>;
    using Callback = std::function<void()>;

    [[nodiscard]] static Result<std::unique_ptr<EventLoop>> create();
    EventLoop(const EventLoop&) = delete;
    EventLoop& operator=(const EventLoop&) = delete;
    ~EventLoop();

    /// Calls back with the EPOLL* bits while `fd` is ready (level-triggered). The caller keeps the
    /// descriptor and unwatches it before closing it.
    /// @errors already_exists: the descriptor is watched; io_error
    [[nodiscard]] Result<void> watch(int fd, std::uint32_t events, FdCallback callback);
    /// Changes the bits waited for.
    [[nodiscard]] Result<void> rewatch(int fd, std::uint32_t events);
    /// Forgets the descriptor; unknown ones are fine.
    void unwatch(int fd) noexcept;

    TimerId call_after(std::chrono::milliseconds delay, Callback callback);
    /// Unknown or fired timers are fine.
    void cancel(TimerId id) noexcept;

    /// Blocks the signals in this thread and calls back for each that arrives. Call it before any
    /// other thread is started: those inherit the block.
    [[nodiscard]] Result<void> watch_signals(std::initializer_list<int> signals,
                                             std::function<void(int signal)> callback);

    /// Runs `callback` on the loop's thread. Any thread may call it, also after the loop ended
    /// (then it is never run).
    void post(Callback callback);

    /// Runs until stop(). @errors io_error: epoll failed
    [[nodiscard]] Result<void> run();
    /// One round: waits at most `timeout` for the first event, handles all that are there.
    [[nodiscard]] Result<void> run_once(std::chrono::milliseconds timeout);
    void stop() noexcept {
        stopped_ = true;
    }

private:
    struct Watch;
    EventLoop() = default;
    [[nodiscard]] int wait_ms(std::chrono::milliseconds limit) const;
    void run_due_timers();
    void run_posted();

    UniqueFd epoll_;
    UniqueFd wakeup_;
    UniqueFd signals_;
    sigset_t old_mask_{};
    std::map<int, std::shared_ptr<Watch>> watches_;
    std::map<std::pair<Clock::time_point, TimerId>, Callback> timers_;
    std::map<TimerId, Clock::time_point> timer_times_;
    TimerId next_timer_ = 1;
    bool stopped_ = false;
    std::mutex posted_mutex_; // guards posted_
    std::vector<Callback> posted_;
};

} // namespace host_runner

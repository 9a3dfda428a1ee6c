// SPDX-License-Identifier: Apache-2.0
#include "host_runner/base/event_loop.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <utility>

#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

namespace host_runner {

struct EventLoop::Watch {
    FdCallback callback;
    bool removed = false;
};

Result<std::unique_ptr<EventLoop>> EventLoop::create() {
    std::unique_ptr<EventLoop> loop(new EventLoop);
    loop->epoll_.reset(::epoll_create1(EPOLL_CLOEXEC));
    if (!loop->epoll_)
        return fail_errno("Cannot make an epoll instance", errno);
    loop->wakeup_.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!loop->wakeup_)
        return fail_errno("Cannot make an eventfd", errno);
    auto* raw = loop.get();
    HR_CHECK(
        loop->watch(loop->wakeup_.get(), EPOLLIN, [raw](std::uint32_t) { raw->run_posted(); }));
    return loop;
}

EventLoop::~EventLoop() {
    if (signals_)
        ::pthread_sigmask(SIG_SETMASK, &old_mask_, nullptr);
}

Result<void> EventLoop::watch(int fd, std::uint32_t events, FdCallback callback) {
    epoll_event event{};
    event.events = events;
    event.data.fd = fd;
    if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0)
        return fail_errno("Cannot watch a descriptor", errno);
    watches_[fd] = std::make_shared<Watch>(Watch{std::move(callback)});
    return {};
}

Result<void> EventLoop::rewatch(int fd, std::uint32_t events) {
    epoll_event event{};
    event.events = events;
    event.data.fd = fd;
    if (::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd, &event) != 0)
        return fail_errno("Cannot change what is watched of a descriptor", errno);
    return {};
}

void EventLoop::unwatch(int fd) noexcept {
    const auto found = watches_.find(fd);
    if (found == watches_.end())
        return;
    found->second->removed = true;
    watches_.erase(found);
    ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
}

EventLoop::TimerId EventLoop::call_after(std::chrono::milliseconds delay, Callback callback) {
    const TimerId id = next_timer_++;
    const auto when = Clock::now() + delay;
    timers_.emplace(std::pair(when, id), std::move(callback));
    timer_times_.emplace(id, when);
    return id;
}

void EventLoop::cancel(TimerId id) noexcept {
    const auto found = timer_times_.find(id);
    if (found == timer_times_.end())
        return;
    timers_.erase(std::pair(found->second, id));
    timer_times_.erase(found);
}

Result<void> EventLoop::watch_signals(std::initializer_list<int> signals,
                                      std::function<void(int)> callback) {
    HR_ASSERT(!signals_);
    sigset_t mask;
    sigemptyset(&mask);
    for (const int signal : signals)
        sigaddset(&mask, signal);
    if (const int problem = ::pthread_sigmask(SIG_BLOCK, &mask, &old_mask_); problem != 0)
        return fail_errno("Cannot block signals", problem);
    signals_.reset(::signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK));
    if (!signals_)
        return fail_errno("Cannot make a signalfd", errno);
    return watch(signals_.get(), EPOLLIN, [this, callback = std::move(callback)](std::uint32_t) {
        signalfd_siginfo info{};
        while (::read(signals_.get(), &info, sizeof info) == static_cast<ssize_t>(sizeof info))
            callback(static_cast<int>(info.ssi_signo));
    });
}

void EventLoop::post(Callback callback) {
    {
        const std::lock_guard lock(posted_mutex_);
        posted_.push_back(std::move(callback));
    }
    const std::uint64_t one = 1;
    // EAGAIN means the counter is full: the loop is woken anyway.
    static_cast<void>(!::write(wakeup_.get(), &one, sizeof one));
}

void EventLoop::run_posted() {
    std::uint64_t count = 0;
    static_cast<void>(!::read(wakeup_.get(), &count, sizeof count));
    std::vector<Callback> work;
    {
        const std::lock_guard lock(posted_mutex_);
        work.swap(posted_);
    }
    for (auto& callback : work)
        callback();
}

void EventLoop::run_due_timers() {
    // Timers added by a callback wait for the next round, so that a zero delay cannot starve the
    // descriptors.
    const auto now = Clock::now();
    const TimerId first_new = next_timer_;
    for (auto it = timers_.begin(); it != timers_.end() && it->first.first <= now;) {
        if (it->first.second >= first_new) {
            ++it;
            continue;
        }
        const auto callback = std::move(it->second);
        timer_times_.erase(it->first.second);
        timers_.erase(it);
        callback();
        it = timers_.begin();
    }
}

int EventLoop::wait_ms(std::chrono::milliseconds limit) const {
    auto left = limit;
    if (!timers_.empty()) {
        // Rounded up, or the loop would spin in the last millisecond.
        const auto until = std::chrono::ceil<std::chrono::milliseconds>(
            timers_.begin()->first.first - Clock::now());
        left = std::clamp(until, std::chrono::milliseconds(0), limit);
    }
    return static_cast<int>(std::min<std::int64_t>(left.count(), INT_MAX));
}

Result<void> EventLoop::run_once(std::chrono::milliseconds timeout) {
    std::array<epoll_event, 32> events{};
    const int count = ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()),
                                   wait_ms(timeout));
    if (count < 0 && errno != EINTR)
        return fail_errno("Cannot wait for events", errno);
    // Held, so that a callback that unwatches another descriptor also silences its event of this
    // round, and one that unwatches itself does not destroy the function it runs in.
    std::array<std::shared_ptr<Watch>, 32> held;
    for (int i = 0; i < count; ++i) {
        const auto index = static_cast<std::size_t>(i);
        const auto found = watches_.find(events.at(index).data.fd);
        if (found != watches_.end())
            held.at(index) = found->second;
    }
    for (int i = 0; i < count; ++i) {
        const auto index = static_cast<std::size_t>(i);
        if (held.at(index) && !held.at(index)->removed)
            held.at(index)->callback(events.at(index).events);
    }
    run_due_timers();
    return {};
}

Result<void> EventLoop::run() {
    stopped_ = false;
    while (!stopped_)
        HR_CHECK(run_once(std::chrono::hours(1)));
    return {};
}

} // namespace host_runner

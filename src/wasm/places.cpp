// SPDX-License-Identifier: Apache-2.0
#include "places.hpp"

#include <algorithm>
#include <array>
#include <cerrno>

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

namespace host_runner::wasm {

namespace {

/// False: nothing happened until `until`.
bool wait_for_either(int wakeup, int cancel_fd, Places::TimePoint until) noexcept {
    for (;;) {
        const auto left = std::max(until - std::chrono::steady_clock::now(),
                                   std::chrono::steady_clock::duration::zero());
        const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(left);
        const timespec timeout{seconds.count(), std::chrono::nanoseconds(left - seconds).count()};
        std::array<pollfd, 2> watched{{{wakeup, POLLIN, 0}, {cancel_fd, POLLIN, 0}}};
        const int ready = ::ppoll(watched.data(), watched.size(), &timeout, nullptr);
        if (ready >= 0)
            return ready > 0;
        HR_ASSERT(errno == EINTR);
    }
}

} // namespace

Result<Places::Taken> Places::take(TimePoint until, int cancel_fd) {
    Waiter self;
    std::unique_lock lock(mutex_);
    if (free_ > 0) {
        --free_;
        return Taken::taken;
    }
    self.wakeup.reset(::eventfd(0, EFD_CLOEXEC));
    if (!self.wakeup)
        return fail_errno("Cannot wait for a place: no eventfd", errno);
    const auto turn = waiting_.insert(waiting_.end(), &self);
    lock.unlock();
    const bool woken = wait_for_either(self.wakeup.get(), cancel_fd, until);
    lock.lock();
    // A place that came at the same moment is not lost.
    if (self.has_place)
        return Taken::taken;
    waiting_.erase(turn);
    return woken ? Taken::cancelled : Taken::timed_out;
}

void Places::give_back() noexcept {
    const std::lock_guard lock(mutex_);
    if (waiting_.empty()) {
        ++free_;
        return;
    }
    auto& next = *waiting_.front();
    waiting_.pop_front();
    next.has_place = true;
    const std::uint64_t one = 1;
    // Under the lock, without which the waiter does not go away.
    HR_ASSERT(::write(next.wakeup.get(), &one, sizeof one) == static_cast<ssize_t>(sizeof one));
}

std::size_t Places::waiting() const {
    const std::lock_guard lock(mutex_);
    return waiting_.size();
}

} // namespace host_runner::wasm

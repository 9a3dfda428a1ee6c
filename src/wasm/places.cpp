// SPDX-License-Identifier: Apache-2.0
#include "places.hpp"

#include <algorithm>
#include <array>
#include <cerrno>

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

namespace host_runner::wasm {

Result<Places> Places::make(std::uint32_t count) {
    UniqueFd counter(::eventfd(count, EFD_CLOEXEC | EFD_NONBLOCK | EFD_SEMAPHORE));
    if (!counter)
        return fail_errno("Cannot make an eventfd", errno);
    return Places(std::move(counter));
}

Places::Taken Places::take(TimePoint until, int cancel_fd) const noexcept {
    for (;;) {
        std::uint64_t one = 0;
        if (::read(counter_.get(), &one, sizeof one) == static_cast<ssize_t>(sizeof one))
            return Taken::taken;
        HR_ASSERT(errno == EAGAIN || errno == EINTR);
        const auto left = std::max(until - std::chrono::steady_clock::now(),
                                   std::chrono::steady_clock::duration::zero());
        const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(left);
        const timespec timeout{seconds.count(), std::chrono::nanoseconds(left - seconds).count()};
        std::array<pollfd, 2> waiting{{{counter_.get(), POLLIN, 0}, {cancel_fd, POLLIN, 0}}};
        const int ready = ::ppoll(waiting.data(), waiting.size(), &timeout, nullptr);
        if (ready == 0)
            return Taken::timed_out;
        if (waiting[1].revents != 0)
            return Taken::cancelled;
    }
}

void Places::give_back() const noexcept {
    const std::uint64_t one = 1;
    HR_ASSERT(::write(counter_.get(), &one, sizeof one) == static_cast<ssize_t>(sizeof one));
}

} // namespace host_runner::wasm

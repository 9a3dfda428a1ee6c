// SPDX-License-Identifier: Apache-2.0
#include "wait.hpp"

#include <algorithm>
#include <cerrno>
#include <ctime>

namespace host_runner::wasm::wasi {

namespace {

using Clock = std::chrono::steady_clock;

/// ppoll takes what is left, not a point in time; a wait this long is repeated.
constexpr std::chrono::hours longest_wait{24};

timespec until(std::optional<TimePoint> end) {
    std::chrono::nanoseconds left = longest_wait;
    if (end) {
        const auto now = Clock::now();
        left = *end <= now ? std::chrono::nanoseconds{0}
                           : std::min<std::chrono::nanoseconds>(*end - now, longest_wait);
    }
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(left);
    return {static_cast<time_t>(seconds.count()), static_cast<long>((left - seconds).count())};
}

tl::unexpected<Failure> interrupted(const char* why) {
    return end_guest(TrapReason::interrupted, why);
}

} // namespace

Answer<Waited> wait_for_any(const CallDeadline& deadline, std::vector<pollfd>& fds,
                            std::optional<TimePoint> limit) {
    auto end = deadline.at;
    if (limit && (!end || *limit < *end))
        end = limit;
    // A negative descriptor is ignored by poll.
    fds.push_back({deadline.cancel_fd, POLLIN, 0});
    for (;;) {
        const timespec left = until(end);
        const int ready = ::ppoll(fds.data(), fds.size(), &left, nullptr);
        if (ready < 0 && errno == EINTR)
            continue;
        if (ready < 0) {
            const auto failure = refuse_errno();
            fds.pop_back();
            return failure;
        }
        const bool cancelled = fds.back().revents != 0;
        if (cancelled) {
            fds.pop_back();
            return interrupted("The call was cancelled");
        }
        if (ready > 0) {
            fds.pop_back();
            return Waited::ready;
        }
        const auto now = Clock::now();
        const bool limit_passed = limit && now >= *limit;
        const bool deadline_passed = deadline.at && now >= *deadline.at;
        if (limit_passed || deadline_passed) {
            fds.pop_back();
            if (limit_passed && (!deadline.at || *limit <= *deadline.at))
                return Waited::limit;
            return interrupted("The call's time is over");
        }
    }
}

Answer<Waited> wait_for(const CallDeadline& deadline, int fd, short events,
                        std::optional<TimePoint> limit) {
    std::vector<pollfd> fds;
    fds.reserve(2);
    fds.push_back({fd, events, 0});
    return wait_for_any(deadline, fds, limit);
}

Answer<void> check_deadline(const CallDeadline& deadline) {
    if (deadline.at && Clock::now() >= *deadline.at)
        return interrupted("The call's time is over");
    if (deadline.cancel_fd >= 0) {
        pollfd cancel{deadline.cancel_fd, POLLIN, 0};
        if (::poll(&cancel, 1, 0) > 0)
            return interrupted("The call was cancelled");
    }
    return {};
}

} // namespace host_runner::wasm::wasi

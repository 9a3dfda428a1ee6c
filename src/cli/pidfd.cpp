// SPDX-License-Identifier: Apache-2.0
#include "pidfd.hpp"

#include <algorithm>
#include <cerrno>
#include <climits>

#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <fmt/format.h>

namespace host_runner::cli {

Result<UniqueFd> open_process(const ProcessIdentity& identity) {
    UniqueFd fd(static_cast<int>(::syscall(SYS_pidfd_open, identity.pid, 0)));
    if (!fd)
        return fail_errno(fmt::format("Cannot look at process {}", identity.pid), errno);
    // Checked after opening: from here on the descriptor stays with this process.
    if (!is_alive(identity))
        return fail(ErrorCode::not_found, fmt::format("Process {} has ended", identity.pid));
    return fd;
}

Result<void> wait_for_end(const UniqueFd& pidfd, std::chrono::milliseconds timeout) {
    using Clock = std::chrono::steady_clock;
    const auto deadline = Clock::now() + timeout;
    for (;;) {
        int limit = -1;
        if (timeout.count() >= 0) {
            const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now());
            limit = static_cast<int>(
                std::clamp<std::chrono::milliseconds::rep>(left.count(), 0, INT_MAX));
        }
        pollfd waiting{pidfd.get(), POLLIN, 0};
        const int ready = ::poll(&waiting, 1, limit);
        if (ready > 0)
            return {};
        if (ready == 0)
            return fail(ErrorCode::timeout, "The process still runs");
        if (errno != EINTR)
            return fail_errno("Cannot wait for a process", errno);
    }
}

} // namespace host_runner::cli

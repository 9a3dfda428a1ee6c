// SPDX-License-Identifier: Apache-2.0
#include "host_runner/host/limits.hpp"

#include <sys/resource.h>
#include <unistd.h>

namespace host_runner::host {

namespace {

std::optional<std::uint64_t> soft_limit(__rlimit_resource resource) {
    rlimit limit{};
    if (::getrlimit(resource, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY)
        return std::nullopt;
    return limit.rlim_cur;
}

} // namespace

ProcessLimits read_process_limits() {
    ProcessLimits limits;
    // root's processes have CAP_IPC_LOCK, to which the limit does not apply: mlock(2).
    if (::geteuid() != 0)
        limits.locked_memory_bytes = soft_limit(RLIMIT_MEMLOCK);
    limits.open_files = soft_limit(RLIMIT_NOFILE);
    return limits;
}

} // namespace host_runner::host

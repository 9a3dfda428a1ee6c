// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Where the kernel runs threads and takes their memory from (libnuma underneath).

#include <cstdint>
#include <memory>
#include <vector>

#include <sys/types.h>

#include "host_runner/base/error.hpp"

namespace host_runner::host {

/// The logical processors on which a thread may run. @param tid 0: the caller
/// @errors not_found: no such thread; invalid_argument: none of them is online, or a cpuset forbids
///         all; permission_denied
[[nodiscard]] Result<void> set_thread_cpus(pid_t tid, const std::vector<std::uint32_t>& cpus);
/// @errors not_found, io_error
[[nodiscard]] Result<std::vector<std::uint32_t>> thread_cpus(pid_t tid);

/// As long as it lives, the thread that made it, and what that starts, runs on some processors and
/// has memory of some NUMA nodes and no others. What was started keeps that.
class ScopedPlacement {
public:
    /// @param cpus not empty @param nodes empty: memory of any
    /// @errors as set_thread_cpus(); invalid_argument: a node that is not there
    [[nodiscard]] static Result<ScopedPlacement> enter(const std::vector<std::uint32_t>& cpus,
                                                       const std::vector<std::uint32_t>& nodes);
    ScopedPlacement(ScopedPlacement&&) noexcept;
    ScopedPlacement& operator=(ScopedPlacement&&) noexcept;
    ScopedPlacement(const ScopedPlacement&) = delete;
    ScopedPlacement& operator=(const ScopedPlacement&) = delete;
    ~ScopedPlacement(); ///< On the same thread.

private:
    struct Before;
    explicit ScopedPlacement(std::unique_ptr<Before> before) noexcept;
    std::unique_ptr<Before> before_;
};

} // namespace host_runner::host

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Limits of services by cgroup v2. Source: linux Documentation/admin-guide/cgroup-v2.rst

#include <cstdint>
#include <optional>
#include <string>

#include "host_runner/base/error.hpp"

namespace host_runner::agent {

struct CgroupLimits {
    std::optional<std::uint64_t> memory_bytes;
    std::optional<std::uint32_t> processes;
};

class Cgroups {
public:
    /// Below the mounted hierarchy `root`, e.g. /sys/fs/cgroup; hands the memory and pids
    /// controllers to its children.
    /// @errors unsupported: the kernel lacks one of them
    [[nodiscard]] static Result<Cgroups> create(std::string root);

    /// Makes the service's cgroup (kept over restarts) and sets its limits. A service that exceeds
    /// its memory is killed as a whole.
    /// @return its folder
    [[nodiscard]] Result<std::string> prepare(const std::string& service,
                                              const CgroupLimits& limits) const;
    /// SIGKILL to everything in it.
    [[nodiscard]] static Result<void> kill_all(const std::string& folder);

private:
    explicit Cgroups(std::string root) : root_(std::move(root)) {}
    std::string root_;
};

} // namespace host_runner::agent

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// A cgroup of its own for each VM: what its QEMU takes of the host's memory and tasks has an end.
///
///     HR_TRY(const auto parent, find_delegated_cgroup());
///     HR_TRY(auto cgroup, VmCgroup::make(parent, "vm-62b529cd61c6", limits, kernel));
///     spec.cgroup_fd = cgroup.procs();      // QEMU enters it before it is executed
///
/// Source: Linux Documentation/admin-guide/cgroup-v2.rst; systemd CGROUP_DELEGATION.md.

#include <cstdint>
#include <functional>
#include <string>

#include <sys/types.h>

#include "host_runner/base/error.hpp"
#include "host_runner/base/process.hpp"
#include "host_runner/base/unique_fd.hpp"
#include "host_runner/host/device_binder.hpp"
#include "host_runner/host/host_root.hpp"

namespace host_runner::host {

struct CgroupLimits {
    std::uint64_t memory_bytes = 0;
    std::uint64_t tasks = 0; ///< Threads.
};

/// The edge to the file system: whether systemd marked the folder of a cgroup as given away.
using IsDelegated = std::function<bool(const std::string& directory)>;
[[nodiscard]] bool is_marked_delegated(const std::string& directory);

/// True where systemd runs this machine (sd_booted(3)).
[[nodiscard]] bool is_systemd_running(const HostRoot& root = {});

/// The folder of this process's cgroup, when that is ours to divide: of a unit with Delegate=yes,
/// or where no systemd watches over it.
/// @errors unsupported: no cgroup v2, or not ours; io_error
[[nodiscard]] Result<std::string>
find_delegated_cgroup(const HostRoot& root = {},
                      const IsDelegated& is_delegated = is_marked_delegated);

/// Whether the kernel can limit memory and tasks of cgroups below this one. @errors unsupported
[[nodiscard]] Result<void> check_cgroup_limits(const std::string& directory);

class VmCgroup {
public:
    /// Makes the cgroup `parent`/`name` and sets what limits the kernel lets. For them it may move
    /// this process into `parent`/host_runner: a cgroup with processes cannot pass controllers on.
    /// @param kernel writes its files
    [[nodiscard]] static Result<VmCgroup> make(const std::string& parent, const std::string& name,
                                               const CgroupLimits& limits, SysfsWriter& kernel);

    /// Of `cgroup.procs`, for ProcessSpec::cgroup_fd.
    [[nodiscard]] int procs() const noexcept {
        return procs_.get();
    }
    [[nodiscard]] const std::string& directory() const noexcept {
        return directory_;
    }
    /// Why there are no limits, or not all; empty: there are.
    [[nodiscard]] const std::string& problem() const noexcept {
        return problem_;
    }

private:
    VmCgroup() = default;
    std::string directory_;
    std::string problem_;
    UniqueFd procs_;
};

/// Removes a cgroup without processes; one that is not there is fine. @errors wrong_state: it has
/// some
[[nodiscard]] Result<void> remove_cgroup(const std::string& directory);

/// Asks systemd for a scope with these limits around a process that runs: root's the system's
/// manager, else the user's own. The scope ends with the process. Takes some 20 ms.
/// @param name "host_runner-ID.scope"
/// @errors not_found: no busctl; unavailable: systemd refuses, with its words; timeout
[[nodiscard]] Result<void> move_to_systemd_scope(ProcessLauncher& launcher, pid_t pid,
                                                 const std::string& name,
                                                 const CgroupLimits& limits);

} // namespace host_runner::host

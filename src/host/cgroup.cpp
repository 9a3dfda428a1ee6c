// SPDX-License-Identifier: Apache-2.0
#include "host_runner/host/cgroup.hpp"

#include <array>
#include <cerrno>
#include <chrono>
#include <set>
#include <string_view>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <fmt/format.h>

#include "host_runner/base/files.hpp"
#include "host_runner/base/units.hpp"
#include "parse.hpp"

namespace host_runner::host {

namespace {

constexpr auto systemd_answers_within = std::chrono::seconds(5);

/// Where the file system cgroup2 is mounted.
Result<std::string> find_cgroup2_mount(const HostRoot& root) {
    HR_TRY(const auto text, read_file(root.path("/proc/self/mounts"), mib));
    std::string_view rest = text;
    while (!rest.empty()) {
        auto line = next_line(rest);
        static_cast<void>(next_word(line)); // the device
        const auto path = next_word(line);
        if (next_word(line) == "cgroup2")
            return root.path(path);
    }
    return fail(ErrorCode::unsupported, "No cgroup2 is mounted");
}

/// The line "0::PATH" of /proc/self/cgroup.
Result<std::string> find_own_cgroup(const HostRoot& root) {
    HR_TRY(const auto text, read_file(root.path("/proc/self/cgroup"), mib));
    std::string_view rest = text;
    while (!rest.empty())
        if (const auto line = next_line(rest); line.starts_with("0::/"))
            return std::string(line.substr(3));
    return fail(ErrorCode::unsupported, "This process is in no cgroup of version 2");
}

Result<void> enable_controllers(const std::string& parent, SysfsWriter& kernel) {
    return kernel.write(parent + "/cgroup.subtree_control", "+memory +pids");
}

/// Into a leaf, so that the cgroup has no process of its own.
Result<void> step_aside(const std::string& parent, SysfsWriter& kernel) {
    const auto leaf = parent + "/host_runner";
    if (::mkdir(leaf.c_str(), 0755) != 0 && errno != EEXIST)
        return fail_errno(fmt::format("Cannot make {}", leaf), errno);
    return kernel.write(leaf + "/cgroup.procs", "0");
}

Result<void> set_limits(const std::string& parent, const std::string& directory,
                        const CgroupLimits& limits, SysfsWriter& kernel) {
    HR_CHECK(check_cgroup_limits(parent));
    if (!enable_controllers(parent, kernel)) {
        HR_CHECK(step_aside(parent, kernel));
        HR_CHECK(enable_controllers(parent, kernel));
    }
    HR_CHECK(kernel.write(directory + "/memory.max", std::to_string(limits.memory_bytes)));
    HR_CHECK(kernel.write(directory + "/pids.max", std::to_string(limits.tasks)));
    // All of QEMU or nothing of it: without one of its threads a VM is broken, not smaller.
    return kernel.write(directory + "/memory.oom.group", "1");
}

} // namespace

bool is_marked_delegated(const std::string& directory) {
    std::array<char, 8> value{};
    // systemd 251 and later; those before set the one that only root can read.
    for (const char* name : {"user.delegate", "trusted.delegate"})
        if (::getxattr(directory.c_str(), name, value.data(), value.size()) == 1 &&
            value.front() == '1')
            return true;
    return false;
}

bool is_systemd_running(const HostRoot& root) {
    return path_exists(root.path("/run/systemd/system"));
}

Result<std::string> find_delegated_cgroup(const HostRoot& root, const IsDelegated& is_delegated) {
    HR_TRY(const auto own, find_own_cgroup(root));
    HR_TRY(const auto mount, find_cgroup2_mount(root));
    auto directory = own == "/" ? mount : mount + own;
    const bool is_ours =
        is_systemd_running(root) ? is_delegated(directory) : ::access(directory.c_str(), W_OK) == 0;
    if (!is_ours)
        return fail(ErrorCode::unsupported,
                    fmt::format("The cgroup {} is not delegated to this process", directory));
    return directory;
}

Result<void> check_cgroup_limits(const std::string& directory) {
    HR_TRY(const auto text, read_file(directory + "/cgroup.controllers", 4096));
    std::string_view rest = text;
    rest = next_line(rest);
    std::set<std::string_view> controllers;
    while (!rest.empty())
        controllers.insert(next_word(rest));
    for (const auto* needed : {"memory", "pids"})
        if (!controllers.contains(needed))
            return fail(ErrorCode::unsupported,
                        fmt::format("{} has no controller {}", directory, needed),
                        "boot without cgroup v1 (systemd.unified_cgroup_hierarchy=1)");
    return {};
}

Result<VmCgroup> VmCgroup::make(const std::string& parent, const std::string& name,
                                const CgroupLimits& limits, SysfsWriter& kernel) {
    VmCgroup cgroup;
    cgroup.directory_ = join_path(parent, name);
    if (::mkdir(cgroup.directory_.c_str(), 0755) != 0 && errno != EEXIST)
        return fail_errno(fmt::format("Cannot make the cgroup {}", cgroup.directory_), errno);
    if (const auto limited = set_limits(parent, cgroup.directory_, limits, kernel); !limited)
        cgroup.problem_ = limited.error().message;
    const auto procs = cgroup.directory_ + "/cgroup.procs";
    cgroup.procs_.reset(::open(procs.c_str(), O_WRONLY | O_CLOEXEC));
    if (!cgroup.procs_)
        return fail_errno(fmt::format("Cannot open {}", procs), errno);
    return cgroup;
}

Result<void> remove_cgroup(const std::string& directory) {
    if (::rmdir(directory.c_str()) == 0 || errno == ENOENT)
        return {};
    if (errno == EBUSY)
        return fail(ErrorCode::wrong_state,
                    fmt::format("The cgroup {} still has processes", directory));
    return fail_errno(fmt::format("Cannot remove the cgroup {}", directory), errno);
}

Result<void> move_to_systemd_scope(ProcessLauncher& launcher, pid_t pid, const std::string& name,
                                   const CgroupLimits& limits) {
    // org.freedesktop.systemd1(5): name, mode, properties, auxiliary units.
    ProcessSpec spec;
    spec.argv = {"busctl",
                 ::geteuid() == 0 ? "--system" : "--user",
                 "--quiet",
                 "call",
                 "org.freedesktop.systemd1",
                 "/org/freedesktop/systemd1",
                 "org.freedesktop.systemd1.Manager",
                 "StartTransientUnit",
                 "ssa(sv)a(sa(sv))",
                 name,
                 "fail",
                 "5",
                 "PIDs",
                 "au",
                 "1",
                 std::to_string(pid),
                 "MemoryMax",
                 "t",
                 std::to_string(limits.memory_bytes),
                 "TasksMax",
                 "t",
                 std::to_string(limits.tasks),
                 "OOMPolicy",
                 "s",
                 "kill",
                 "CollectMode",
                 "s",
                 "inactive-or-failed",
                 "0"};
    HR_TRY(const auto done, run_captured(launcher, spec, systemd_answers_within));
    if (!done.status.exited || done.status.code != 0)
        return fail(ErrorCode::unavailable,
                    fmt::format("systemd gives QEMU no scope of its own: {}",
                                done.err.empty() ? done.status.describe() : done.err));
    return {};
}

} // namespace host_runner::host

// SPDX-License-Identifier: Apache-2.0
#include "host_runner/agent/cgroups.hpp"

#include <cerrno>
#include <string_view>

#include <fcntl.h>
#include <sys/stat.h>

#include <fmt/format.h>

#include "host_runner/base/files.hpp"
#include "host_runner/base/unique_fd.hpp"

namespace host_runner::agent {

namespace {

Result<void> set(const std::string& folder, std::string_view name, std::string_view value) {
    const auto path = join_path(folder, name);
    const UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
    if (!fd)
        return fail_errno(fmt::format("Cannot open {}", path), errno);
    return write_all(fd.get(), value).map_error([&](Error error) {
        error.message = fmt::format("Cannot write '{}' to {}: {}", value, path, error.message);
        return error;
    });
}

} // namespace

Result<Cgroups> Cgroups::create(std::string root) {
    HR_CHECK(set(root, "cgroup.subtree_control", "+memory +pids").map_error([](Error error) {
        error.code = ErrorCode::unsupported;
        return error;
    }));
    return Cgroups(std::move(root));
}

Result<std::string> Cgroups::prepare(const std::string& service, const CgroupLimits& limits) const {
    // The prefix keeps it apart from the hierarchy's own files, such as "memory.stat".
    auto folder = join_path(root_, "service-" + service);
    if (::mkdir(folder.c_str(), 0755) != 0 && errno != EEXIST)
        return fail_errno(fmt::format("Cannot make the cgroup {}", folder), errno);
    HR_CHECK(set(folder, "memory.max",
                 limits.memory_bytes ? fmt::format("{}", *limits.memory_bytes) : "max"));
    HR_CHECK(set(folder, "memory.oom.group", "1"));
    HR_CHECK(
        set(folder, "pids.max", limits.processes ? fmt::format("{}", *limits.processes) : "max"));
    return folder;
}

Result<void> Cgroups::kill_all(const std::string& folder) {
    return set(folder, "cgroup.kill", "1");
}

} // namespace host_runner::agent

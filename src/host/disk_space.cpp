// SPDX-License-Identifier: Apache-2.0
#include "host_runner/host/disk_space.hpp"

#include <cerrno>

#include <sys/statvfs.h>

#include <fmt/format.h>

#include "host_runner/base/files.hpp"
#include "host_runner/base/units.hpp"

namespace host_runner::host {

Result<std::uint64_t> free_disk_bytes(const std::string& path) {
    std::string folder = path;
    struct statvfs status {};
    while (::statvfs(folder.c_str(), &status) != 0) {
        if (errno == EINTR)
            continue;
        const auto parent = parent_path(folder);
        if ((errno != ENOENT && errno != ENOTDIR) || parent == folder)
            return fail_errno(fmt::format("Cannot ask for the free space at {}", folder), errno);
        folder = parent;
    }
    // Blocks that only root may use do not count.
    return static_cast<std::uint64_t>(status.f_bavail) * status.f_frsize;
}

Result<void> require_disk_space(const std::string& path, std::uint64_t needed_bytes,
                                std::string_view purpose) {
    HR_TRY(const auto free_bytes, free_disk_bytes(path));
    if (free_bytes >= needed_bytes)
        return {};
    return fail(ErrorCode::resource_exhausted,
                fmt::format("Not enough disk space at {} for {}: {} needed, {} free", path, purpose,
                            format_size_rounded(needed_bytes), format_size_rounded(free_bytes)),
                "make room, for example with `host_runner prune`, or move the state folder with "
                "HOST_RUNNER_HOME");
}

Result<std::optional<std::string>>
warn_disk_space(const std::string& path, std::uint64_t full_bytes, std::string_view purpose) {
    HR_TRY(const auto free_bytes, free_disk_bytes(path));
    if (free_bytes >= full_bytes)
        return std::nullopt;
    return fmt::format("{} may grow to {}, but {} has only {} free", purpose,
                       format_size_rounded(full_bytes), path, format_size_rounded(free_bytes));
}

} // namespace host_runner::host

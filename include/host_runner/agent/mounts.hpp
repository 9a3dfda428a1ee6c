// SPDX-License-Identifier: Apache-2.0
#pragma once

/// File systems of the guest: what is mounted where, and a root in which folders can be made.

#include <string>
#include <vector>

#include "host_runner/base/error.hpp"

namespace host_runner::agent {

struct MountRequest {
    std::string source;
    std::string target;
    std::string type;        ///< Empty for bind mounts.
    unsigned long flags = 0; ///< MS_* of mount(2).
    std::string options;     ///< As in mount(2)'s data.
};

/// The edge behind which tests put a fake.
class Mounter {
public:
    virtual ~Mounter() = default;
    /// @errors already_exists: that file system is mounted there; else by errno
    [[nodiscard]] virtual Result<void> mount(const MountRequest& request) = 0;
    [[nodiscard]] virtual Result<void> unmount(const std::string& target) = 0;
};

class SystemMounter final : public Mounter {
public:
    [[nodiscard]] Result<void> mount(const MountRequest& request) override;
    [[nodiscard]] Result<void> unmount(const std::string& target) override;
};

/// proc, sysfs, devtmpfs, devpts, tmpfs on /dev/shm, /run and /tmp, cgroup2: what is already there
/// stays. Folders are made where the root allows it.
[[nodiscard]] Result<void> mount_system(Mounter& mounter);

/// When the root file system is read-only (our image's squashfs), puts an overlay with a tmpfs on
/// top in its place, so that mount targets and /etc/hosts can be made. Call it first, as PID 1.
/// @errors unsupported: the kernel has no overlay file system; the root is as before
[[nodiscard]] Result<void> make_root_writable(Mounter& mounter);

/// One line of /proc/self/mountinfo, as far as it is needed.
struct MountedFileSystem {
    std::string target;
    std::string type;
    std::string source;
};
/// In the order of mounting; lines of another form are skipped.
/// Source: proc(5), /proc/[pid]/mountinfo
[[nodiscard]] std::vector<MountedFileSystem> parse_mountinfo(std::string_view text);

/// Unmounts, last first, every file system that lies on a block device (except the root), so that
/// its data is safe. Failures are returned as lines for the log.
[[nodiscard]] std::vector<std::string> unmount_disks(Mounter& mounter,
                                                     const std::vector<MountedFileSystem>& mounted);

} // namespace host_runner::agent

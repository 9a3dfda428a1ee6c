// SPDX-License-Identifier: Apache-2.0
#include "host_runner/agent/mounts.hpp"

#include <algorithm>
#include <array>
#include <cerrno>

#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <fmt/format.h>

#include "host_runner/base/files.hpp"

namespace host_runner::agent {

namespace {

/// The field's octal escapes (\040 for a space, ...) undone.
std::string unescape(std::string_view field) {
    std::string text;
    for (std::size_t i = 0; i < field.size(); ++i) {
        const auto digit = [&](std::size_t offset) {
            return field[i + offset] - '0';
        };
        const auto is_octal = [&](std::size_t offset) {
            return field[i + offset] >= '0' && field[i + offset] <= '7';
        };
        if (field[i] == '\\' && i + 3 < field.size() && is_octal(1) && is_octal(2) && is_octal(3)) {
            text += static_cast<char>(digit(1) * 64 + digit(2) * 8 + digit(3));
            i += 3;
        } else {
            text += field[i];
        }
    }
    return text;
}

std::vector<std::string_view> split(std::string_view text, char separator) {
    std::vector<std::string_view> parts;
    while (!text.empty()) {
        const auto end = std::min(text.find(separator), text.size());
        if (end > 0)
            parts.push_back(text.substr(0, end));
        text.remove_prefix(std::min(end + 1, text.size()));
    }
    return parts;
}

bool is_mount_point(const std::string& path) {
    struct stat parent {};
    struct stat folder {};
    return ::stat(parent_path(path).c_str(), &parent) == 0 && ::stat(path.c_str(), &folder) == 0 &&
           parent.st_dev != folder.st_dev;
}

} // namespace

Result<void> SystemMounter::mount(const MountRequest& request) {
    if (::mount(request.source.c_str(), request.target.c_str(),
                request.type.empty() ? nullptr : request.type.c_str(), request.flags,
                request.options.empty() ? nullptr : request.options.c_str()) == 0)
        return {};
    const int saved_errno = errno;
    const auto what = fmt::format("Cannot mount {} on {}", request.source, request.target);
    if (saved_errno == EBUSY)
        return fail(ErrorCode::already_exists, what + ": it is mounted there");
    if (saved_errno == ENODEV)
        return fail(ErrorCode::unsupported,
                    fmt::format("{}: the kernel has no file system {}", what, request.type));
    return fail_errno(what, saved_errno);
}

Result<void> SystemMounter::unmount(const std::string& target) {
    if (::umount2(target.c_str(), UMOUNT_NOFOLLOW) != 0)
        return fail_errno(fmt::format("Cannot unmount {}", target), errno);
    return {};
}

Result<void> mount_system(Mounter& mounter) {
    constexpr unsigned long safe = MS_NOSUID | MS_NODEV | MS_NOEXEC;
    const std::array<MountRequest, 8> requests{{
        {"proc", "/proc", "proc", safe, ""},
        {"sysfs", "/sys", "sysfs", safe, ""},
        {"devtmpfs", "/dev", "devtmpfs", MS_NOSUID | MS_NOEXEC, "mode=0755"},
        {"devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "gid=5,mode=0620,ptmxmode=0666"},
        {"tmpfs", "/dev/shm", "tmpfs", safe, "mode=1777"},
        {"tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755"},
        {"tmpfs", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777"},
        {"cgroup2", "/sys/fs/cgroup", "cgroup2", safe, ""},
    }};
    for (const auto& request : requests) {
        HR_CHECK(make_directories(request.target, 0755));
        if (is_mount_point(request.target))
            continue;
        auto mounted = mounter.mount(request);
        if (!mounted && mounted.error().code != ErrorCode::already_exists)
            return mounted;
    }
    return {};
}

Result<void> make_root_writable(Mounter& mounter) {
    struct statvfs status {};
    if (::statvfs("/", &status) != 0)
        return fail_errno("Cannot look at the root file system", errno);
    if ((status.f_flag & ST_RDONLY) == 0)
        return {};
    const std::string base = "/tmp";
    const std::string root = base + "/root";
    HR_CHECK(mounter.mount({"tmpfs", base, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755"}));
    for (const auto* name : {"upper", "work", "root"})
        HR_CHECK(make_directories(join_path(base, name), 0755));
    if (auto mounted = mounter.mount({"overlay", root, "overlay", MS_NODEV,
                                      "lowerdir=/,upperdir=/tmp/upper,workdir=/tmp/work"});
        !mounted) {
        static_cast<void>(mounter.unmount(base));
        return mounted;
    }
    for (const auto* path : {"/proc", "/sys", "/dev", "/run"})
        if (is_mount_point(path))
            HR_CHECK(mounter.mount({path, root + path, "", MS_MOVE, ""}));
    // The new root over the old one, which is then detached; see pivot_root(2),
    // "pivot_root(".", ".")".
    if (::chdir(root.c_str()) != 0 || ::syscall(SYS_pivot_root, ".", ".") != 0 ||
        ::umount2(".", MNT_DETACH) != 0 || ::chdir("/") != 0)
        return fail_errno("Cannot change to the writable root", errno);
    return {};
}

std::vector<MountedFileSystem> parse_mountinfo(std::string_view text) {
    std::vector<MountedFileSystem> mounted;
    for (const auto line : split(text, '\n')) {
        // "36 35 98:0 /root /target options optional... - type source super-options"
        const auto separator = line.find(" - ");
        if (separator == std::string_view::npos)
            continue;
        const auto left = split(line.substr(0, separator), ' ');
        const auto right = split(line.substr(separator + 3), ' ');
        if (left.size() >= 6 && right.size() >= 2)
            mounted.push_back({unescape(left[4]), std::string(right[0]), unescape(right[1])});
    }
    return mounted;
}

std::vector<std::string> unmount_disks(Mounter& mounter,
                                       const std::vector<MountedFileSystem>& mounted) {
    std::vector<std::string> problems;
    for (auto it = mounted.rbegin(); it != mounted.rend(); ++it) {
        if (!it->source.starts_with("/dev/") || it->target == "/")
            continue;
        if (auto unmounted = mounter.unmount(it->target); !unmounted)
            problems.push_back(unmounted.error().describe());
    }
    return problems;
}

} // namespace host_runner::agent

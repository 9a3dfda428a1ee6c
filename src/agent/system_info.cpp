// SPDX-License-Identifier: Apache-2.0
#include "host_runner/agent/system_info.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <optional>

#include <sys/statvfs.h>
#include <sys/utsname.h>

#include <fmt/format.h>

#include "host_runner/agent/mounts.hpp"
#include "host_runner/base/files.hpp"
#include "host_runner/base/units.hpp"

namespace host_runner::agent {

namespace {

constexpr std::size_t max_proc_bytes = mib;

/// What follows "key" and the separator on its line, without quotes and leading blanks.
std::optional<std::string> value_of(std::string_view text, std::string_view key, char separator) {
    while (!text.empty()) {
        const auto end = std::min(text.find('\n'), text.size());
        const auto line = text.substr(0, end);
        text.remove_prefix(std::min(end + 1, text.size()));
        const auto middle = line.find(separator);
        if (middle == std::string_view::npos)
            continue;
        auto name = line.substr(0, middle);
        while (!name.empty() && (name.back() == ' ' || name.back() == '\t'))
            name.remove_suffix(1);
        if (name != key)
            continue;
        auto value = line.substr(middle + 1);
        while (!value.empty() && (value.front() == ' ' || value.front() == '"'))
            value.remove_prefix(1);
        while (!value.empty() && value.back() == '"')
            value.remove_suffix(1);
        return std::string(value);
    }
    return std::nullopt;
}

Result<std::uint64_t> memory_bytes(std::string_view meminfo, std::string_view key) {
    const auto text = value_of(meminfo, key, ':');
    std::uint64_t kibibytes = 0;
    if (!text ||
        std::from_chars(text->data(), text->data() + text->size(), kibibytes).ec != std::errc{})
        return fail(ErrorCode::corrupt_data, fmt::format("/proc/meminfo has no {}", key));
    return kibibytes * kib;
}

/// The decimal fraction at the start of `text`, which is moved behind it and one blank.
Result<double> next_number(std::string_view& text, std::string_view file) {
    double value = 0;
    const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (problem != std::errc{})
        return fail(ErrorCode::corrupt_data, fmt::format("{} has no number", file));
    text.remove_prefix(static_cast<std::size_t>(end - text.data()));
    if (!text.empty())
        text.remove_prefix(1);
    return value;
}

} // namespace

Result<protocol::SystemInfo> read_system_info(const std::string& root,
                                              const std::vector<std::string>& mount_points) {
    protocol::SystemInfo info;
    struct utsname names {};
    if (::uname(&names) != 0)
        return fail_errno("Cannot ask for the kernel's version", errno);
    info.kernel_version = static_cast<const char*>(names.release);

    HR_TRY(const auto release, read_file(root + "/etc/os-release", max_proc_bytes));
    info.os_name = value_of(release, "NAME", '=').value_or("");
    info.os_version = value_of(release, "VERSION_ID", '=').value_or("");

    HR_TRY(const auto cpuinfo, read_file(root + "/proc/cpuinfo", 16 * mib));
    info.cpu_model = value_of(cpuinfo, "model name", ':').value_or("");
    for (std::size_t at = 0; (at = cpuinfo.find("processor\t", at)) != std::string::npos; ++at)
        ++info.num_cpus;

    HR_TRY(const auto meminfo, read_file(root + "/proc/meminfo", max_proc_bytes));
    HR_TRY(info.total_memory, memory_bytes(meminfo, "MemTotal"));
    HR_TRY(info.available_memory, memory_bytes(meminfo, "MemAvailable"));
    HR_TRY(info.free_memory, memory_bytes(meminfo, "MemFree"));
    info.used_memory = info.total_memory - std::min(info.total_memory, info.available_memory);
    HR_TRY(info.total_swap, memory_bytes(meminfo, "SwapTotal"));
    HR_TRY(info.free_swap, memory_bytes(meminfo, "SwapFree"));
    info.used_swap = info.total_swap - std::min(info.total_swap, info.free_swap);

    HR_TRY(const auto uptime, read_file(root + "/proc/uptime", max_proc_bytes));
    std::string_view rest = uptime;
    HR_TRY(const double seconds, next_number(rest, "/proc/uptime"));
    info.uptime = static_cast<std::uint64_t>(seconds);

    HR_TRY(const auto loadavg, read_file(root + "/proc/loadavg", max_proc_bytes));
    rest = loadavg;
    for (auto* load : {&info.loadavg_one, &info.loadavg_five, &info.loadavg_fifteen}) {
        HR_TRY(const double value, next_number(rest, "/proc/loadavg"));
        *load = static_cast<std::uint32_t>(std::lround(value * 100));
    }

    HR_TRY(const auto mountinfo, read_file(root + "/proc/self/mountinfo", max_proc_bytes));
    const auto mounted = parse_mountinfo(mountinfo);
    for (const auto& mount_point : mount_points) {
        const auto found =
            std::find_if(mounted.rbegin(), mounted.rend(), [&](const MountedFileSystem& entry) {
                return entry.target == mount_point;
            });
        struct statvfs status {};
        if (found == mounted.rend() || ::statvfs(mount_point.c_str(), &status) != 0)
            continue; // not mounted (yet)
        info.disks.push_back({found->source, mount_point,
                              std::uint64_t{status.f_blocks} * status.f_frsize,
                              std::uint64_t{status.f_bavail} * status.f_frsize});
    }
    return info;
}

} // namespace host_runner::agent

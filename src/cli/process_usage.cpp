// SPDX-License-Identifier: Apache-2.0
#include "host_runner/cli/process_usage.hpp"

#include <sstream>
#include <string_view>

#include <unistd.h>

#include <fmt/format.h>

#include "host_runner/base/files.hpp"
#include "host_runner/base/units.hpp"

namespace host_runner::cli {

namespace {

constexpr std::size_t max_proc_file = 64UL * 1024;

tl::unexpected<Error> bad_form(const std::string& path) {
    return fail(ErrorCode::corrupt_data, fmt::format("{} has not the form of procfs", path));
}

/// The number after "NAME:" at a line's beginning; nullopt when there is no such line.
std::optional<std::uint64_t> field(const std::string& text, std::string_view name) {
    std::istringstream lines(text);
    for (std::string word; lines >> word;) {
        std::uint64_t value = 0;
        if (word == name && lines >> value)
            return value;
    }
    return std::nullopt;
}

/// User plus system time, fields 14 and 15 (proc_pid_stat(5)); the command's name in field 2 may
/// hold anything, so they are counted from its closing bracket.
Result<double> cpu_seconds(const std::string& folder) {
    const auto path = folder + "/stat";
    HR_TRY(const auto text, read_file(path, max_proc_file));
    const auto bracket = text.rfind(')');
    if (bracket == std::string::npos)
        return bad_form(path);
    std::istringstream fields(text.substr(bracket + 1));
    std::string skipped;
    for (int number = 3; number < 14; ++number)
        fields >> skipped;
    std::uint64_t user = 0;
    std::uint64_t system = 0;
    if (!(fields >> user >> system))
        return bad_form(path);
    return static_cast<double>(user + system) / static_cast<double>(::sysconf(_SC_CLK_TCK));
}

Result<std::uint64_t> memory_bytes(const std::string& folder) {
    if (const auto text = read_file(folder + "/smaps_rollup", max_proc_file)) {
        // Rss leaves hugepages out.
        if (const auto resident = field(*text, "Rss:"))
            return (*resident + field(*text, "Shared_Hugetlb:").value_or(0) +
                    field(*text, "Private_Hugetlb:").value_or(0)) *
                   kib;
    }
    const auto path = folder + "/statm";
    HR_TRY(const auto text, read_file(path, max_proc_file));
    std::istringstream fields(text);
    std::uint64_t total = 0;
    std::uint64_t resident = 0;
    if (!(fields >> total >> resident))
        return bad_form(path);
    return resident * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
}

} // namespace

Result<ProcessUsage> read_process_usage(pid_t pid, const std::string& proc) {
    const auto folder = fmt::format("{}/{}", proc, pid);
    ProcessUsage usage;
    HR_TRY(usage.cpu_seconds, cpu_seconds(folder));
    HR_TRY(usage.memory_bytes, memory_bytes(folder));
    if (const auto text = read_file(folder + "/io", max_proc_file)) {
        usage.read_bytes = field(*text, "read_bytes:");
        usage.written_bytes = field(*text, "write_bytes:");
    }
    return usage;
}

} // namespace host_runner::cli

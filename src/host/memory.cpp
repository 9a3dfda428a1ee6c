// SPDX-License-Identifier: Apache-2.0
#include "host_runner/host/memory.hpp"

#include <charconv>
#include <string_view>

#include <fmt/format.h>

#include "host_runner/base/files.hpp"
#include "host_runner/base/units.hpp"

namespace host_runner::host {

namespace {

/// "MemTotal:       32812345 kB" (proc_meminfo(5); the unit is always kB and means KiB).
Result<std::uint64_t> find_line(std::string_view text, std::string_view key) {
    while (!text.empty()) {
        const auto end = std::min(text.find('\n'), text.size());
        auto line = text.substr(0, end);
        text.remove_prefix(std::min(end + 1, text.size()));
        if (!line.starts_with(key))
            continue;
        line.remove_prefix(key.size());
        line.remove_prefix(std::min(line.find_first_not_of(' '), line.size()));
        std::uint64_t kibibytes = 0;
        const auto [stop, error] =
            std::from_chars(line.data(), line.data() + line.size(), kibibytes);
        if (error == std::errc() && kibibytes < (std::uint64_t{1} << 53))
            return kibibytes * kib;
        break;
    }
    return fail(ErrorCode::corrupt_data, fmt::format("/proc/meminfo has no valid line {}", key));
}

} // namespace

Result<Memory> read_memory(const HostRoot& root) {
    HR_TRY(const auto text, read_file(root.path("/proc/meminfo"), 64 * kib));
    Memory memory;
    HR_TRY(memory.total_bytes, find_line(text, "MemTotal:"));
    HR_TRY(memory.available_bytes, find_line(text, "MemAvailable:"));
    return memory;
}

Result<std::optional<std::string>> assess_memory(std::uint64_t vm_bytes, const Memory& memory,
                                                 spec::Tee tee) {
    if (tee == spec::Tee::tdx && vm_bytes > memory.total_bytes)
        return fail(ErrorCode::resource_exhausted,
                    fmt::format("A TD of {} does not fit: this host has {} of memory in all",
                                format_size(vm_bytes), format_size_rounded(memory.total_bytes)),
                    "a TD's memory is pinned and cannot be overcommitted: give it less with "
                    "--memory");
    if (vm_bytes <= memory.available_bytes)
        return std::nullopt;
    return fmt::format("The VM may use {} of memory, but only {} of this host's {} are available; "
                       "it starts, and may be killed when it uses more",
                       format_size(vm_bytes), format_size_rounded(memory.available_bytes),
                       format_size_rounded(memory.total_bytes));
}

} // namespace host_runner::host

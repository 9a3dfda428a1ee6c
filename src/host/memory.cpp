// SPDX-License-Identifier: Apache-2.0
#include "host_runner/host/memory.hpp"

#include <fmt/format.h>

#include "host_runner/base/files.hpp"
#include "host_runner/base/units.hpp"
#include "meminfo.hpp"

namespace host_runner::host {

Result<Memory> read_memory(const HostRoot& root) {
    HR_TRY(const auto text, read_file(root.path("/proc/meminfo"), 64 * kib));
    Memory memory;
    HR_TRY(memory.total_bytes, find_meminfo_line(text, "MemTotal:"));
    HR_TRY(memory.available_bytes, find_meminfo_line(text, "MemAvailable:"));
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

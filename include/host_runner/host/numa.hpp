// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "host_runner/base/error.hpp"
#include "host_runner/host/host_root.hpp"

namespace host_runner::host {

struct NumaNode {
    std::uint32_t node = 0;
    std::vector<std::uint32_t> cpus; ///< Logical processors, ascending; empty: memory only.
    std::uint64_t total_bytes = 0;
    std::uint64_t free_bytes = 0; ///< MemFree: without what caches could give back.
};

/// The nodes that are online, ascending. A kernel without NUMA support has none.
/// Source: Linux Documentation/ABI/stable/sysfs-devices-node
/// @errors corrupt_data, io_error
[[nodiscard]] Result<std::vector<NumaNode>> read_numa_nodes(const HostRoot& root = {});

/// The kernel's lists of numbers, "0-3,8": ascending, each number once. At most 65536.
/// Source: Linux Documentation/admin-guide/cputopology.rst
/// @errors corrupt_data
[[nodiscard]] Result<std::vector<std::uint32_t>> parse_number_list(std::string_view text);
/// The same list as text. @param numbers ascending
[[nodiscard]] std::string format_number_list(const std::vector<std::uint32_t>& numbers);

} // namespace host_runner::host

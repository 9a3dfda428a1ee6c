// SPDX-License-Identifier: Apache-2.0
#pragma once

/// What a process uses, from /proc (Linux Documentation/filesystems/proc.rst).

#include <cstdint>
#include <optional>
#include <string>

#include <sys/types.h>

#include "host_runner/base/error.hpp"

namespace host_runner::cli {

struct ProcessUsage {
    /// Resident bytes, hugepages included where smaps_rollup may be read.
    std::uint64_t memory_bytes = 0;
    double cpu_seconds = 0; ///< User and system time of all its threads since its start.
    /// From and to storage; nullopt where this user may not know (another user's process).
    std::optional<std::uint64_t> read_bytes;
    std::optional<std::uint64_t> written_bytes;
};

/// @param proc the folder where procfs is mounted
/// @errors not_found: no such process; corrupt_data: not the form of procfs
[[nodiscard]] Result<ProcessUsage> read_process_usage(pid_t pid, const std::string& proc = "/proc");

} // namespace host_runner::cli

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <optional>

namespace host_runner::host {

/// A soft limit of this process, which QEMU inherits; nullopt: none. See getrlimit(2).
struct ProcessLimits {
    std::optional<std::uint64_t> locked_memory_bytes;
    std::optional<std::uint64_t> open_files;
};

/// The edge to the kernel.
using ProcessLimitsQuery = std::function<ProcessLimits()>;
/// The real one. root, whose processes have CAP_IPC_LOCK, has no limit of locked memory.
[[nodiscard]] ProcessLimits read_process_limits();

} // namespace host_runner::host

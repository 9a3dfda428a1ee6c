// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "host_runner/base/error.hpp"
#include "host_runner/host/host_root.hpp"
#include "host_runner/spec/vm_spec.hpp"

namespace host_runner::host {

struct Memory {
    std::uint64_t total_bytes = 0;     ///< MemTotal
    std::uint64_t available_bytes = 0; ///< MemAvailable: what can be had without swapping.
};

/// From /proc/meminfo: the machine's, not a cgroup's limit.
/// @errors not_found, io_error; corrupt_data: a line is missing
[[nodiscard]] Result<Memory> read_memory(const HostRoot& root = {});

/// Whether a VM of `vm_bytes` fits. QEMU takes memory as the guest touches it, so too much is a
/// warning (the text); but a TD's pages are pinned: more than the host has cannot work.
/// @return the warning with both numbers, or nullopt
/// @errors resource_exhausted: a TD larger than the machine, with both numbers
[[nodiscard]] Result<std::optional<std::string>> assess_memory(std::uint64_t vm_bytes,
                                                               const Memory& memory, spec::Tee tee);

} // namespace host_runner::host

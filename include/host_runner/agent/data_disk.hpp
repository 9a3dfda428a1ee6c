// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The disk that outlives a boot. Formatted only when it is blank, never when it holds anything.

#include <functional>
#include <string>
#include <string_view>

#include "host_runner/agent/mounts.hpp"
#include "host_runner/base/error.hpp"
#include "host_runner/base/process.hpp"

namespace host_runner::agent {

/// True in an Intel TDX guest. Source: linux arch/x86/include/asm/cpufeatures.h,
/// X86_FEATURE_TDX_GUEST, shown in /proc/cpuinfo as "tdx_guest"
[[nodiscard]] bool is_tdx_guest(std::string_view cpuinfo);

enum class DataDiskState { none, plain };
/// As in GuestInfo: "none" or "plain".
[[nodiscard]] std::string_view to_string(DataDiskState state) noexcept;

struct DataDiskRequest {
    std::string device; ///< Empty or missing: there is none.
    std::string mount_point;
    bool is_tdx_guest = false;
};

/// Formats the disk with ext4 when it is blank, then mounts it. `progress` gets the boot.progress
/// payloads. In a TD nothing is touched, because a plain disk would show the tenant's data to the
/// host: the state is none, and `say` tells why.
/// @errors corrupt_data: it holds something else; or what mke2fs or mount say
[[nodiscard]] Result<DataDiskState>
set_up_data_disk(const DataDiskRequest& request, ProcessLauncher& launcher, Mounter& mounter,
                 const std::function<void(std::string_view)>& progress,
                 const std::function<void(std::string_view)>& say);

} // namespace host_runner::agent

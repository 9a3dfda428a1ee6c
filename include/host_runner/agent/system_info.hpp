// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The guest's own figures, for SysInfo.

#include <string>
#include <vector>

#include "host_runner/base/error.hpp"
#include "host_runner/protocol/guest_api.hpp"

namespace host_runner::agent {

/// Reads /proc and /etc/os-release below `root` ("" for the real ones) and the free space of each
/// mount point. Thread-safe.
/// @errors as read_file(); corrupt_data: a kernel file without the expected figure
/// Source: proc(5), os-release(5)
[[nodiscard]] Result<protocol::SystemInfo>
read_system_info(const std::string& root, const std::vector<std::string>& mount_points);

} // namespace host_runner::agent

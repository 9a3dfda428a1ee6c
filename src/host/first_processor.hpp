// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "host_runner/base/error.hpp"
#include "host_runner/host/host_root.hpp"

namespace host_runner::host {

/// The lines of the first processor in /proc/cpuinfo, and perhaps some of the next: reading the
/// whole file takes milliseconds on large machines.
/// @errors not_found, permission_denied, io_error
[[nodiscard]] Result<std::string> read_first_processor(const HostRoot& root);

} // namespace host_runner::host

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <set>
#include <string>

#include "host_runner/base/error.hpp"
#include "host_runner/host/host_root.hpp"

namespace host_runner::host {

/// The `flags` of the first processor in /proc/cpuinfo; empty where it has no such line (not x86).
/// Only the start is read: the whole file takes milliseconds on large machines.
/// @errors not_found, permission_denied, io_error
[[nodiscard]] Result<std::set<std::string, std::less<>>> read_cpu_flags(const HostRoot& root = {});

} // namespace host_runner::host

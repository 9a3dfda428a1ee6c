// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Who has something open, from the descriptors in /proc/*/fd.
///
///     const auto holders = find_holders({"/dev/vfio/devices/vfio0"}, root);

#include <functional>
#include <map>
#include <set>
#include <string>

#include <sys/types.h>

#include "host_runner/host/host_root.hpp"

namespace host_runner::host {

struct ProcessHolder {
    pid_t pid = 0;
    std::string program; ///< The kernel's name of it, at most 15 characters (/proc/PID/comm).
    bool operator==(const ProcessHolder&) const = default;
};

/// For each target that some process has open, one process that does. A target is a descriptor's
/// link as the kernel writes it: a path, or "socket:[INODE]". Descriptors of other users'
/// processes are seen by root only; a process that ends meanwhile counts as gone. One pass over
/// /proc for all targets. Thread-safe. Source: proc(5), /proc/PID/fd.
[[nodiscard]] std::map<std::string, ProcessHolder, std::less<>>
find_holders(const std::set<std::string, std::less<>>& targets, const HostRoot& root = {});

} // namespace host_runner::host

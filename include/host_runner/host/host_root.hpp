// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

namespace host_runner::host {

/// Where /proc, /sys and /dev are found: the real machine, or a folder of small files in a test.
struct HostRoot {
    std::string root = "/";

    /// `absolute` starts with '/': "/proc/meminfo" -> "/proc/meminfo" or "FIXTURE/proc/meminfo".
    [[nodiscard]] std::string path(std::string_view absolute) const {
        return (root == "/" ? std::string() : root) + std::string(absolute);
    }
};

} // namespace host_runner::host

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// passt as a VM's user network.
///
///     HR_TRY(const auto passt, find_passt(launcher, cache));
///     if (passt.problem.empty()) ...

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "host_runner/base/error.hpp"
#include "host_runner/base/process.hpp"
#include "host_runner/spec/port_mapping.hpp"
#include "host_runner/usernet/network_process.hpp"

namespace host_runner::usernet {

struct Passt {
    std::string path;    ///< Empty: not in PATH.
    std::string problem; ///< Why it is not used; empty: it is fit.
};

/// Asks `passt --help` which options it has, unless `cache_directory` has the answer for this path,
/// device, inode, size and mtime (empty: nothing is remembered).
///
/// Fit is one with --fd, --no-map-gw and --map-host-loopback. Without the last it is from before
/// August 2024, and then passes a packet that the guest addressed to 127.0.0.1 itself on to this
/// host's loopback, whatever --no-map-gw says (tried with that of Debian 12, 0.0~git20230309; the
/// one of Debian 13, 0.0~git20250503, drops it).
[[nodiscard]] Passt find_passt(ProcessLauncher& launcher, const std::string& cache_directory);

/// Decides from the text of `passt --help`. @return why it is not fit; empty: it is
[[nodiscard]] std::string passt_problem(const std::string& help);

/// The guest's addresses are those of the other user networks: 10.0.2.10, gateway 10.0.2.2, DNS
/// 10.0.2.3.
[[nodiscard]] NetworkCommand passt_command(const std::string& path,
                                           const std::vector<spec::PortMapping>& ports);
/// What passt says: its pid when it is ready, else why it ended.
[[nodiscard]] std::optional<Status> parse_passt_status(std::string_view text, bool ended);

} // namespace host_runner::usernet

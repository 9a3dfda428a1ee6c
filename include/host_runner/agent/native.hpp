// SPDX-License-Identifier: Apache-2.0
#pragma once

/// `guest_agent --dev`: the services of a compose file as processes of this machine, for a quick
/// inner loop. The same way as in a VM from the compose file to the worker, with the same
/// supervisor; but no VM around them, no users of their own, no cgroups.

#include <string>
#include <vector>

#include "host_runner/agent/prepare_services.hpp"
#include "host_runner/base/error.hpp"
#include "host_runner/base/unique_fd.hpp"

namespace host_runner::agent {

struct NativeOptions {
    std::string compose_path;
    std::string env_file;           ///< Empty: none.
    std::vector<std::string> ports; ///< As `host_runner run -p` takes them.
    /// Everything is written in this folder: volumes, logs, compiled modules, certificates. Empty:
    /// .host-runner-dev/NAME beside the compose file.
    std::string state;
};

struct NativeServices {
    std::vector<PreparedService> services;
    std::string state;
    UniqueFd lock; ///< Of the state folder.
    /// The modules' ports: bound, so that nobody else takes them while a worker is started again.
    std::vector<UniqueFd> reserved;
    std::vector<std::string> addresses; ///< Where each port is reached, a line each.
    std::vector<std::string> functions; ///< Services that are called.
    UniqueFd function_socket;           ///< Listens for their callers; empty without functions.
    std::vector<std::string> notices;   ///< What the compose file asks for and has no effect here.
};

/// Everything up to the start.
/// @errors as load_compose(), resolve_compose() and parse_port_mappings(); already_exists: another
///         one uses the state folder, or a port is in use; unsupported: a program mounts something
///         where this machine has nothing; permission_denied, io_error
[[nodiscard]] Result<NativeServices> prepare_native(const NativeOptions& options);

/// Runs the services until all have ended or a signal comes: the first stops them in order, the
/// second kills them. Call from the main thread, with no other threads yet.
/// @return the process's exit code: 0 when all ended with 0 or a signal came, 1 when one did not,
///         else as exit_code_for() says
[[nodiscard]] int run_native(const NativeOptions& options, const std::string& program);

} // namespace host_runner::agent

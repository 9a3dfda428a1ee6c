// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The worlds, one function each, and what they are started with.

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "host_runner/base/error.hpp"
#include "host_runner/base/unique_fd.hpp"
#include "host_runner/wasm/engine.hpp"
#include "host_runner/wasm/http_server.hpp"
#include "host_runner/wasm/wasi/files.hpp"
#include "host_runner/wasm/wasi/sockets.hpp"
#include "host_runner/wasm/worker/confine.hpp"
#include "host_runner/wasm/worker/counters.hpp"
#include "host_runner/wasm/worker/request.hpp"

namespace host_runner::wasm::worker {

struct Start {
    const Request& request;
    std::string artifact = {};
    std::string pem = {}; ///< Of certificate and key; empty: no TLS.
    std::vector<std::pair<std::string, std::string>> environment = {};
    int stop_fd = -1; ///< Readable once SIGTERM or SIGINT has come.
    UniqueFd& report;
    const Counters& counters;

    /// The last step before the module runs: gives up what is not needed any more, and tells the
    /// agent.
    [[nodiscard]] Result<void> begin(const ConfineOptions& options = {});
};

/// @return the process's exit code
/// @errors the module cannot be run
[[nodiscard]] Result<int> run_command(Start& start);
[[nodiscard]] Result<int> run_http(Start& start);
[[nodiscard]] Result<int> run_function(Start& start);

/// What the compose file says of a component, for whatever serves it.
[[nodiscard]] HttpServerSettings http_settings(const Start& start);

// What the worlds of core modules have in common.

/// The module with WASI behind its imports. Frees the artifact.
[[nodiscard]] Result<Program> load_program(const Engine& engine, Start& start);

/// FD_COUNT and FD_NAMES, where the environment does not have them.
void add_names(std::vector<std::pair<std::string, std::string>>& environment,
               const std::vector<std::string>& names);

/// The worker's root folder as the module's.
[[nodiscard]] Result<wasi::File> open_root();

/// What a module gave to proc_exit, as parents see it: the lowest eight bits; 1 where these are 0
/// and the number is not.
[[nodiscard]] int visible_exit_code(std::uint32_t code) noexcept;

/// The trap and where it was, a line for each frame.
[[nodiscard]] std::string describe_trap(const Outcome& outcome);

/// A listener for one of the service's ports, as an entry of its file list.
[[nodiscard]] wasi::FileEntry listen_entry(const Request& request, const Port& port,
                                           wasi::Protocol protocol);

/// A line for the service's log.
void say(std::string_view line);

} // namespace host_runner::wasm::worker

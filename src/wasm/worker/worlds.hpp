// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The worlds, one function each, and what they are started with.

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "host_runner/base/error.hpp"
#include "host_runner/base/unique_fd.hpp"
#include "host_runner/wasm/wasi/sockets.hpp"
#include "host_runner/wasm/worker/confine.hpp"
#include "host_runner/wasm/worker/request.hpp"

namespace host_runner::wasm::worker {

struct Start {
    const Request& request;
    std::string artifact = {};
    std::string pem = {}; ///< Of certificate and key; empty: no TLS.
    std::vector<std::pair<std::string, std::string>> environment = {};
    int stop_fd = -1; ///< Readable once SIGTERM or SIGINT has come.
    UniqueFd& report;

    /// The last step before the module runs: gives up what is not needed any more, and tells the
    /// agent.
    [[nodiscard]] Result<void> begin(const ConfineOptions& options = {});
};

/// @return the process's exit code
/// @errors the module cannot be run
[[nodiscard]] Result<int> run_command(Start& start);
[[nodiscard]] Result<int> run_http(Start& start);

/// A listener for one of the service's ports, as an entry of its file list.
[[nodiscard]] wasi::FileEntry listen_entry(const Request& request, const Port& port,
                                           wasi::Protocol protocol);

/// A line for the service's log.
void say(std::string_view line);

} // namespace host_runner::wasm::worker

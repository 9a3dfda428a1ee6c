// SPDX-License-Identifier: Apache-2.0
#pragma once

/// What a worker is told on its command line. The module's environment is the worker's own, so that
/// it does not stand in argv, which every process may read.

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "host_runner/base/error.hpp"
#include "host_runner/protocol/app_compose.hpp"

namespace host_runner::wasm::worker {

/// Whom a module may ask over HTTP.
struct Outgoing {
    std::string name;    ///< "HOST:PORT"
    std::string address; ///< "IP:PORT"
};

/// A TCP port of the service, and where it is listened on.
struct Port {
    std::uint16_t number = 0;      ///< The service's own: what FD_NAMES calls it.
    std::string address = {};      ///< A literal address; empty: all.
    std::uint16_t listen_port = 0; ///< There; 0: `number`.
    bool operator==(const Port&) const = default;
};

struct Request {
    protocol::World world = protocol::World::command;
    bool is_component = false; ///< With function: not a core module.
    int artifact_fd = -1;      ///< A file with the compiled code, read from where it is.
    /// Gets "error TEXT\n" when the module cannot be run, and is closed when it is about to run:
    /// its ports are open then. -1: nobody listens, and the error goes to stderr.
    int report_fd = -1;
    /// A file with the PEM of a certificate and its key: the ports speak TLS. -1: none.
    int tls_fd = -1;
    /// With function: a SOCK_SEQPACKET socket of the agent's; see invocation.hpp.
    int channel_fd = -1;
    int counters_fd = -1;               ///< See counters.hpp; -1: nobody wants to know.
    std::vector<std::string> arguments; ///< Of the module, argv[0] first.
    bool has_files = false;             ///< The worker's root folder is the module's.
    std::vector<Port> ports;
    bool shares_ports = false;            ///< With the workers of the service's other replicas.
    std::uint64_t memory_bytes = 0;       ///< Linear memory at most.
    std::chrono::milliseconds timeout{0}; ///< Of the run, one request or one call; 0: none.
    std::vector<Outgoing> outgoing;       ///< Of a component.
    protocol::AppCallLimits calls;        ///< With function.
    std::chrono::milliseconds grace{0};   ///< For requests and calls that run at SIGTERM.
};

[[nodiscard]] std::string encode_request(const Request& request);

/// @errors invalid_argument
[[nodiscard]] Result<Request> decode_request(std::string_view json);

} // namespace host_runner::wasm::worker

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Serves a component of the world wasi:http/proxy (0.2): each request is answered by a fresh
/// instance.
///
///     HR_TRY(const auto artifact, compile(component));
///     HR_TRY(auto server, HttpServer::start(artifact, std::move(listener), settings));
///     ...
///     const auto given_up = server.stop(10s);
///
/// For worker processes only, as Engine is (engine.hpp): a bug in the engine ends the process, and
/// the engine takes signal handlers. Its engine is one of its own, with a pool of its own.

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "host_runner/base/error.hpp"
#include "host_runner/base/unique_fd.hpp"

namespace host_runner::wasm {

/// What happens to requests and connections. Each has a counter; the comment says which also have
/// an event and what the client gets.
enum class HttpKind : std::uint8_t {
    connection,      ///< A client connected.
    request,         ///< A request's headers came.
    bad_request,     ///< 400 or 413, without an instance.
    rejected,        ///< 503: no place became free in time.
    trapped,         ///< Event. 500, or an answer that breaks off.
    timed_out,       ///< Event. 504, or an answer that breaks off.
    out_of_memory,   ///< Event. 503: it was refused memory and gave up.
    guest_failed,    ///< Event. 500: it answered with an error code, or not at all.
    client_gone,     ///< The client left before the answer was complete; the instance was ended.
    client_too_slow, ///< A time limit of the connection closed it.
    tls_failed,      ///< Event. The handshake failed.
    outgoing,        ///< A guest sent a request.
    outgoing_denied, ///< Event. A guest was not allowed to.
    accept_failed,   ///< Event. The system has no descriptors or memory left.
};
constexpr std::size_t http_kinds = 14;

/// The name as in logs and metrics, e.g. "out_of_memory".
[[nodiscard]] std::string_view to_string(HttpKind kind) noexcept;

/// Whom a component may send requests to.
struct OutgoingAuthority {
    std::string name;    ///< "HOST:PORT", with the port also where it is 80 or 443.
    std::string address; ///< "IP:PORT" ("[IP]:PORT" for IPv6): no name is looked up.
};

struct HttpServerSettings {
    std::uint32_t threads = 2; ///< That serve, beside one that ticks; 1 to 256.
    std::uint32_t places = 64; ///< Instances alive at a time; 1 to 10000.
    std::uint64_t memory_bytes = std::uint64_t{64} << 20; ///< Of one instance; at most 4 GiB.
    std::uint64_t keep_resident_bytes = 0;                ///< As in EngineSettings.
    std::uint32_t table_elements = 20000;                 ///< Of one table.
    std::uint32_t tables = 8;                             ///< Of one component.
    std::uint32_t memories = 2;        ///< Of one component; each reserves 4 GiB per place.
    std::uint32_t core_instances = 16; ///< What one component may be made of.
    std::chrono::milliseconds tick{5}; ///< How often a computing guest lets others run.

    /// From the place to the end of the instance, with both bodies.
    std::chrono::milliseconds request_timeout{30'000};
    std::chrono::milliseconds wait_for_place{1000}; ///< May be 0.

    std::uint32_t connections = 1000; ///< More wait in the kernel's queue of the listener.
    /// From the first byte of a request to the end of its headers, and for the TLS handshake.
    std::chrono::milliseconds header_timeout{10'000};
    /// Without a request, or without a client that takes what is sent.
    std::chrono::milliseconds idle_timeout{60'000};
    std::chrono::milliseconds body_timeout{10'000}; ///< Between two pieces of a request's body.
    std::uint32_t header_bytes = 32U << 10;         ///< 431 above; 8192 to 16 MiB.
    std::uint32_t headers = 100;                    ///< 431 above.
    std::uint64_t request_body_bytes = std::uint64_t{64} << 20; ///< 413 above.

    std::vector<std::string> environment; ///< "NAME=VALUE"
    std::vector<std::string> arguments;
    int stdout_fd = -1; ///< Duplicated. A pipe that nobody reads stops the server's threads.
    int stderr_fd = -1;

    std::vector<OutgoingAuthority> outgoing; ///< Empty: a component sends requests to nobody.
    std::string outgoing_ca_pem;             ///< Whom to trust for https; empty: https fails.
    std::uint32_t outgoing_connections = 64; ///< Of all instances at a time.
    /// To connect, to the answer's head, and between two pieces of its body; each.
    std::chrono::milliseconds outgoing_timeout{10'000};

    std::string certificate_pem; ///< The chain, own first. With `key_pem` empty: no TLS.
    std::string key_pem;         ///< PKCS #8, SEC 1 or PKCS #1.

    /// What has an event. Called from the server's threads, several at once; must not throw or
    /// wait. The text is one line of printable ASCII.
    std::function<void(HttpKind kind, std::string_view text)> on_event;

    /// `http_kinds` numbers to which the server adds, atomically; they outlive it. nullptr: its
    /// own.
    std::uint64_t* counters = nullptr;
};

/// A request that comes on no connection.
struct HttpCall {
    std::string_view path = "/";               ///< POST it.
    std::string_view body = {};                ///< Of any size.
    std::vector<std::string> environment = {}; ///< "NAME=VALUE"; wins over the settings'.
    std::chrono::milliseconds timeout{30'000}; ///< In place of the settings' request_timeout.
    int cancel_fd = -1;                        ///< Ends the call once it is readable. Needed.
    /// Gets the answer's body as it comes, on the calling thread; false ends the call. Must not
    /// throw.
    std::function<bool(std::string_view)> on_output = {};
};

struct HttpCallEnd {
    std::uint32_t status = 0; ///< Of an answer that is complete.
    /// Where there is none: trapped, timed_out, out_of_memory, guest_failed, rejected, bad_request,
    /// or client_gone where the call was cancelled.
    std::optional<HttpKind> failure = {};
    std::string message = {}; ///< Of the failure.
};

/// Members may be called from several threads, stop() from one at a time.
class HttpServer {
public:
    /// Makes the process ignore SIGPIPE. Serves on `listener` with HTTP/1.1, over TLS 1.3 where
    /// there is a certificate.
    /// @param artifact what compile() made of a component, under the same rules as for
    /// Engine::load()
    /// @param listener a listening TCP socket; empty: only call() is served
    /// @errors invalid_argument: a setting out of its range, a certificate or key that is none, or
    /// not a listening socket; corrupt_data: not an artifact of this engine and CPU; unsupported:
    /// a component that imports what is not there, answers no requests, or needs more than the
    /// settings allow; resource_exhausted: address space or threads
    [[nodiscard]] static Result<HttpServer> start(std::string_view artifact, UniqueFd listener,
                                                  const HttpServerSettings& settings);

    HttpServer(HttpServer&&) noexcept;
    HttpServer& operator=(HttpServer&&) noexcept;
    HttpServer(const HttpServer&) = delete;
    HttpServer& operator=(const HttpServer&) = delete;
    ~HttpServer(); ///< stop() without grace.

    /// Closes the listener, ends idle connections, lets requests that run go on for `grace`, and
    /// ends what is left. Blocks until all is over.
    /// @return how many requests were given up; 0 when it was stopped before
    std::uint64_t stop(std::chrono::milliseconds grace);

    /// Has a fresh instance answer, and blocks until that is over. Not while stop() runs.
    [[nodiscard]] HttpCallEnd call(const HttpCall& call) const;

    /// How often it happened, on top of what the settings' counters had at the start.
    [[nodiscard]] std::uint64_t count(HttpKind kind) const noexcept;

    /// Implementation only.
    struct Impl;

private:
    explicit HttpServer(std::unique_ptr<Impl> impl) noexcept;
    std::unique_ptr<Impl> impl_;
};

} // namespace host_runner::wasm

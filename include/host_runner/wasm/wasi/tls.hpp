// SPDX-License-Identifier: Apache-2.0
#pragma once

/// TLS 1.3 over a stream socket that never blocks. Nothing here waits: an operation that cannot go
/// on says what it needs, and its caller polls.
///
///     HR_TRY(auto server, wasi::TlsServer::create({certificate_pem, key_pem}));
///     options.files.emplace_back(wasi::Listener{std::move(fd), server});
///
/// Writing never raises SIGPIPE.

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "host_runner/base/error.hpp"

namespace host_runner::wasm::wasi {

enum class TlsStatus : std::uint8_t {
    done,
    want_read,  ///< Again when the socket is readable.
    want_write, ///< Again when the socket is writable.
    closed,     ///< The peer ended the stream in the orderly way (close_notify).
    truncated,  ///< The stream ended without close_notify: what came may be a part only.
    failed,     ///< The handshake or a record is wrong, or the socket failed.
    timed_out,  ///< The handshake took longer than it may.
};

struct TlsProgress {
    TlsStatus status = TlsStatus::failed;
    std::size_t bytes = 0; ///< Moved by a read, peek or write that is done.
};

/// One connection. The socket is borrowed and must outlive it; used by one thread at a time.
/// The handshake is part of the first operations, so that accepting a client never waits for it.
class TlsSession {
public:
    struct State;
    explicit TlsSession(std::unique_ptr<State> state) noexcept;
    TlsSession(const TlsSession&) = delete;
    TlsSession& operator=(const TlsSession&) = delete;
    ~TlsSession();

    /// Goes on with the handshake; done at once when it is complete.
    TlsProgress handshake() noexcept;
    /// Bytes of the peer, at least one when done.
    TlsProgress read(std::span<std::byte> into) noexcept;
    /// Like read(), but the bytes stay.
    TlsProgress peek(std::span<std::byte> into) noexcept;
    /// Takes at most one record (16 KiB). What the socket does not take at once is kept and sent by
    /// later calls of any kind; until then further writes want_write.
    TlsProgress write(std::span<const std::byte> from) noexcept;
    /// Sends what write() has kept.
    TlsProgress flush() noexcept;
    /// Sends what is kept, then close_notify. Reading stays possible.
    TlsProgress close_notify() noexcept;

    [[nodiscard]] bool is_established() const noexcept;
    /// Until when the handshake must be complete; empty once it is.
    [[nodiscard]] std::optional<std::chrono::steady_clock::time_point> limit() const noexcept;
    /// Decrypted bytes that a read gives without the socket.
    [[nodiscard]] std::size_t pending_bytes() const noexcept;
    /// OpenSSL's words for the last failure; empty without one.
    [[nodiscard]] const std::string& failure() const noexcept;

private:
    std::unique_ptr<State> state_;
};

struct TlsServerOptions {
    std::string certificate_chain_pem; ///< The server's certificate first.
    std::string private_key_pem;       ///< Without a password.
    std::chrono::milliseconds handshake_timeout{10'000};
};

/// What a listener needs for its connections. Immutable; every thread may use it.
class TlsServer {
public:
    struct State;
    explicit TlsServer(std::unique_ptr<State> state) noexcept;
    TlsServer(const TlsServer&) = delete;
    TlsServer& operator=(const TlsServer&) = delete;
    ~TlsServer();

    /// @errors invalid_argument: no certificate or key in the texts, or they do not belong together
    [[nodiscard]] static Result<std::shared_ptr<const TlsServer>>
    create(const TlsServerOptions& options);

    /// The server's side on an accepted socket; its handshake must be complete within the timeout.
    /// @errors resource_exhausted
    [[nodiscard]] Result<std::unique_ptr<TlsSession>> start(int fd) const;

private:
    std::unique_ptr<State> state_;
};

struct TlsClientOptions {
    std::string ca_certificates_pem; ///< Whom to trust; nothing else is trusted.
    std::chrono::milliseconds handshake_timeout{10'000};
};

/// What connections to servers need. Immutable; every thread may use it.
class TlsClient {
public:
    struct State;
    explicit TlsClient(std::unique_ptr<State> state) noexcept;
    TlsClient(const TlsClient&) = delete;
    TlsClient& operator=(const TlsClient&) = delete;
    ~TlsClient();

    /// @errors invalid_argument: no certificate in the text
    [[nodiscard]] static Result<std::shared_ptr<const TlsClient>>
    create(const TlsClientOptions& options);

    /// The client's side on a connected socket. The server's certificate must name `host`: a DNS
    /// name, or an address in its text form.
    /// @errors invalid_argument: `host` is neither; resource_exhausted
    [[nodiscard]] Result<std::unique_ptr<TlsSession>> start(int fd, const std::string& host) const;

private:
    std::unique_ptr<State> state_;
};

} // namespace host_runner::wasm::wasi

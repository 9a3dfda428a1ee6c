// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Moving bytes over sockets, TLS, pipes and terminals within the deadline of a call.

#include <cstddef>
#include <span>

#include <sys/uio.h>

#include "fd_table.hpp"
#include "wait.hpp"

namespace host_runner::wasm::wasi {

enum class Blocking : std::uint8_t { no, yes };

struct ReceiveOptions {
    Blocking blocking = Blocking::yes;
    bool peek = false;     ///< The bytes stay.
    bool wait_all = false; ///< TCP and blocking only: as many as there is room for.
};

/// At least one byte, or 0 at the end of the stream. `buffers` may be changed.
/// AGAIN: nothing now and not blocking. TLS: CONNRESET: ended without close_notify; CONNABORTED:
/// the handshake failed; TIMEDOUT: it took too long; PROTO: a bad record
[[nodiscard]] Answer<std::size_t> receive(const CallDeadline& deadline, Stream& stream,
                                          std::span<iovec> buffers, ReceiveOptions options);

/// At least one byte of `buffers`. PIPE: the peer has closed; the rest as receive().
[[nodiscard]] Answer<std::size_t> send(const CallDeadline& deadline, Stream& stream,
                                       std::span<iovec> buffers, Blocking blocking);

[[nodiscard]] Answer<std::size_t> read_host(const CallDeadline& deadline, int fd,
                                            std::span<iovec> buffers, Blocking blocking);
[[nodiscard]] Answer<std::size_t> write_host(const CallDeadline& deadline, int fd,
                                             std::span<iovec> buffers, Blocking blocking);

/// Sends what TLS has kept, and its close_notify; nothing for TCP.
[[nodiscard]] Answer<void> end_writing(const CallDeadline& deadline, Stream& stream,
                                       Blocking blocking);

/// What a status of TLS other than done and closed means: waits for what it wants, or an errno.
[[nodiscard]] Answer<void> settle(const CallDeadline& deadline, const Stream& stream,
                                  TlsStatus status, Blocking blocking);

/// For an entry that the guest has closed. TLS peers learn of it; at most until `limit` (or the
/// deadline) when the entry blocks.
void close_orderly(const CallDeadline& deadline, Entry& entry, TimePoint limit) noexcept;

} // namespace host_runner::wasm::wasi

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Serves one handler on streams that somebody else opened: accepted sockets, a virtio-serial port.

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "host_runner/base/error.hpp"
#include "host_runner/base/unique_fd.hpp"
#include "host_runner/net/http.hpp"

namespace host_runner::net {

/// An answer of unknown length: the handler writes pieces, each goes out as one chunk at once.
/// The writer returns false when the peer is gone. On a character device that is also so when a
/// request comes meanwhile: the host has closed its end and opened it again, unnoticed.
using ChunkWriter = std::function<bool(std::string_view bytes)>;
using StreamingHandler = std::function<void(const HttpRequest& request, const ChunkWriter& write)>;

class HttpServer {
public:
    HttpServer(HttpHandler handler, HttpLimits limits);
    HttpServer(const HttpServer&) = delete;
    HttpServer& operator=(const HttpServer&) = delete;
    ~HttpServer();

    /// Requests to exactly this path are answered with a chunked body (application/jsonl).
    void set_streaming(std::string path, StreamingHandler handler);

    /// Serves requests from `fd` (a socket or a character device; blocking or not) until the peer
    /// closes, breaks a limit, or interrupt() is called. `fd` is borrowed. Blocking; may run on
    /// several threads at once, each with a stream of its own.
    ///
    /// For a virtio-serial port in the guest a read of 0 bytes while the host stays connected is
    /// waited over: only POLLHUP (or 0 bytes from a socket) is an end.
    ///
    /// A request header `x-request-id` (letters, digits and '-', at most 64) is sent back unchanged
    /// in the answer, so that a client on a stream without connection borders can drop what belongs
    /// to an earlier one.
    void serve(int fd);

    /// Makes every running serve() return soon. Thread-safe; the object stays unusable after it.
    void interrupt() noexcept;

private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

} // namespace host_runner::net

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// One request over one stream.

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "host_runner/base/error.hpp"
#include "host_runner/base/unique_fd.hpp"
#include "host_runner/net/http.hpp"

namespace host_runner::net {

/// Gives a connected stream (socket or character device) for one request.
using Connector = std::function<Result<UniqueFd>()>;

[[nodiscard]] Connector connect_unix(std::string path);
/// A character device such as /dev/virtio-ports/host-runner.1.
[[nodiscard]] Connector open_device(std::string path);
[[nodiscard]] Connector connect_tcp(std::string host, std::uint16_t port,
                                    std::chrono::milliseconds timeout);
[[nodiscard]] Connector connect_vsock(std::uint32_t cid, std::uint32_t port);

struct RequestOptions {
    std::chrono::milliseconds timeout{10'000}; ///< For the whole exchange.
    std::size_t max_body_bytes = 1 << 20;
    /// Called for each piece of the answer's body as it comes, in place of collecting it; return
    /// false to stop (the request then fails with ErrorCode::unavailable).
    std::function<bool(std::string_view)> on_body;
};

/// Sends the request, with a fresh `x-request-id`, and reads its answer. On streams that outlive a
/// request (virtio-serial) leftovers of an earlier answer are dropped: everything up to the answer
/// with this id is skipped.
/// @errors unavailable: refused, reset, closed early; timeout; corrupt_data: no HTTP or over the
/// cap
[[nodiscard]] Result<HttpResponse> send_request(const Connector& connector,
                                                const HttpRequest& request,
                                                const RequestOptions& options = {});

} // namespace host_runner::net

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// HTTP/1.1 in the small: what host API and guest API need.
/// cpp-httplib does the protocol; its types stay in src/net.

#include <chrono>
#include <cstddef>
#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "host_runner/base/error.hpp"

namespace host_runner::net {

struct HttpRequest {
    std::string method = "GET";
    std::string path;                           ///< Without the query, e.g. "/api/Notify".
    std::string query;                          ///< Without '?', e.g. "json".
    std::map<std::string, std::string> headers; ///< Names in lower case; the last one wins.
    std::string body;
};

struct HttpResponse {
    int status = 200;
    std::string content_type = "application/json";
    std::string body;
};

/// Must not throw; runs on the server's thread, one request at a time per stream.
using HttpHandler = std::function<HttpResponse(const HttpRequest&)>;

/// What a peer may cost. A request that breaks a limit is answered 413, 431 or 408 where that can
/// still be done, and its stream is closed.
struct HttpLimits {
    std::size_t max_header_bytes = 8UL * 1024;
    std::size_t max_body_bytes = 64UL * 1024;
    std::chrono::milliseconds idle_timeout{0};         ///< Between two requests; 0 = for ever.
    std::chrono::milliseconds request_timeout{10'000}; ///< From a request's first byte to its last.
    std::chrono::milliseconds response_timeout{10'000}; ///< For writing one answer.
};

} // namespace host_runner::net

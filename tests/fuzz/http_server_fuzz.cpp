// SPDX-License-Identifier: Apache-2.0
// Bytes on a stream on which we serve: the end of the input is the end of the stream.
#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include <sys/socket.h>

#include "host_runner/base/files.hpp"
#include "host_runner/net/http_server.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace host_runner;
    std::array<int, 2> fds{};
    if (::socketpair(AF_UNIX, SOCK_STREAM, 0, fds.data()) != 0)
        return 0;
    const UniqueFd ours(fds[0]);
    const UniqueFd theirs(fds[1]);
    // The socket's buffer takes every input that the fuzzer makes, so nobody needs to read on.
    static_cast<void>(write_all(theirs.get(), {reinterpret_cast<const char*>(data), size}));
    ::shutdown(theirs.get(), SHUT_WR);
    net::HttpLimits limits;
    limits.max_header_bytes = 1024;
    limits.max_body_bytes = 1024;
    limits.response_timeout = std::chrono::milliseconds(100);
    net::HttpServer server([](const net::HttpRequest&) { return net::HttpResponse{}; }, limits);
    server.serve(ours.get());
    return 0;
}

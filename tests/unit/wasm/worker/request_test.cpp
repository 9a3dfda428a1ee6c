// SPDX-License-Identifier: Apache-2.0
#include "host_runner/wasm/worker/request.hpp"

#include <gmock/gmock.h>

namespace host_runner::wasm::worker {
namespace {

using namespace std::chrono_literals;

TEST(WorkerRequest, survives_its_encoding) {
    Request request;
    request.artifact_fd = 5;
    request.report_fd = 3;
    request.tls_fd = 6;
    request.counters_fd = 7;
    request.arguments = {"site.wasm", "two words", "\"quoted\"", ""};
    request.has_files = true;
    request.ports = {{.number = 80}, {.number = 65535, .address = "::1", .listen_port = 1}};
    request.shares_ports = true;
    request.memory_bytes = std::uint64_t{4} << 30U;
    request.timeout = 90s;
    request.grace = 8s;
    request.world = protocol::World::wasi_http;
    request.outgoing = {{"db:80", "127.0.0.1:80"}};
    const auto decoded = decode_request(encode_request(request));
    ASSERT_TRUE(decoded) << decoded.error().describe();
    EXPECT_EQ(decoded->artifact_fd, 5);
    EXPECT_EQ(decoded->report_fd, 3);
    EXPECT_EQ(decoded->tls_fd, 6);
    EXPECT_EQ(decoded->counters_fd, 7);
    EXPECT_EQ(decoded->arguments, request.arguments);
    EXPECT_TRUE(decoded->has_files);
    EXPECT_EQ(decoded->ports, request.ports);
    EXPECT_TRUE(decoded->shares_ports);
    EXPECT_EQ(decoded->memory_bytes, request.memory_bytes);
    EXPECT_EQ(decoded->timeout, 90s);
    EXPECT_EQ(decoded->grace, 8s);
    EXPECT_EQ(decoded->world, protocol::World::wasi_http);
    ASSERT_EQ(decoded->outgoing.size(), 1U);
    EXPECT_EQ(decoded->outgoing[0].name, "db:80");
    EXPECT_EQ(decoded->outgoing[0].address, "127.0.0.1:80");
}

TEST(WorkerRequest, refuses_what_is_none) {
    for (const auto* text : {"", "{}", "[1]", R"({"arguments":"x"})"})
        EXPECT_EQ(decode_request(text).error().code, ErrorCode::invalid_argument) << text;
}

} // namespace
} // namespace host_runner::wasm::worker

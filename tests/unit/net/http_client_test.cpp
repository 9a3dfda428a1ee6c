// SPDX-License-Identifier: Apache-2.0
#include "host_runner/net/http_client.hpp"

#include <functional>
#include <thread>

#include <arpa/inet.h>
#include <netinet/in.h>

#include <gmock/gmock.h>

#include "fakes/raw_peer.hpp"
#include "fakes/temporary_directory.hpp"
#include "host_runner/net/http_server.hpp"

namespace host_runner::net {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;
using ::testing::StartsWith;
using tests::RawPeer;

HttpRequest post_request() {
    HttpRequest request;
    request.method = "POST";
    request.path = "/api/Info";
    request.query = "json";
    request.body = "{}";
    return request;
}

RequestOptions within(std::chrono::milliseconds timeout) {
    RequestOptions options;
    options.timeout = timeout;
    return options;
}

/// The header lines that our servers send for a request's id.
std::string id_of(const std::string& request) {
    const std::string name = "x-request-id: ";
    const auto begin = request.find(name);
    return request.substr(begin, request.find("\r\n", begin) + 2 - begin);
}

std::string answer(const std::string& request, const std::string& body,
                   const std::string& headers = {}) {
    return "HTTP/1.1 200 OK\r\n" + headers + "Content-Length: " + std::to_string(body.size()) +
           "\r\n" + id_of(request) + "\r\n" + body;
}

/// One end for send_request(); at the other a thread runs `peer_` once the request has come. The
/// stream stays open until both are done, unless the peer closes it.
class HttpClientTest : public ::testing::Test {
protected:
    using Script = std::function<void(RawPeer& peer, const std::string& request)>;

    Result<HttpResponse> ask(const Script& script, const RequestOptions& options = {},
                             const HttpRequest& request = post_request()) {
        auto ends = tests::connected_pair();
        RawPeer peer(std::move(ends.second));
        std::thread thread([&] {
            const auto head = peer.receive_until("\r\n\r\n");
            script(peer, head + peer.receive_until(request.body));
        });
        auto result =
            send_request([&] { return Result<UniqueFd>(std::move(ends.first)); }, request, options);
        thread.join();
        return result;
    }
};

TEST_F(HttpClientTest, sends_method_target_headers_and_body) {
    std::string seen;
    auto request = post_request();
    request.headers["content-type"] = "application/json";
    ASSERT_TRUE(ask(
        [&](RawPeer& peer, const std::string& got) {
            seen = got;
            peer.send(answer(got, "null"));
        },
        {}, request));
    EXPECT_THAT(seen, StartsWith("POST /api/Info?json HTTP/1.1\r\n"));
    EXPECT_THAT(seen, HasSubstr("content-type: application/json\r\n"));
    EXPECT_THAT(seen, HasSubstr("\r\n\r\n{}"));
}

TEST_F(HttpClientTest, gives_status_type_and_body) {
    const auto response = ask([](RawPeer& peer, const std::string& got) {
        peer.send("HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\n" + id_of(got) +
                  "Content-Length: 5\r\n\r\nwrong");
    });
    ASSERT_TRUE(response) << response.error().describe();
    EXPECT_EQ(response->status, 400);
    EXPECT_EQ(response->content_type, "application/json");
    EXPECT_EQ(response->body, "wrong");
}

TEST_F(HttpClientTest, takes_a_chunked_answer) {
    const auto response = ask([](RawPeer& peer, const std::string& got) {
        peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n" + id_of(got) +
                  "\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
    });
    ASSERT_TRUE(response) << response.error().describe();
    EXPECT_EQ(response->body, "abcde");
}

TEST_F(HttpClientTest, gives_the_pieces_of_a_body_as_they_come) {
    std::string pieces;
    auto options = within(tests::patience);
    options.on_body = [&](std::string_view piece) {
        pieces.append(piece);
        return true;
    };
    const auto response =
        ask([](RawPeer& peer, const std::string& got) { peer.send(answer(got, "abc")); }, options);
    ASSERT_TRUE(response) << response.error().describe();
    EXPECT_EQ(pieces, "abc");
    EXPECT_EQ(response->body, "");
}

TEST_F(HttpClientTest, stops_when_the_receiver_has_enough) {
    auto options = within(tests::patience);
    options.on_body = [](std::string_view) {
        return false;
    };
    const auto response =
        ask([](RawPeer& peer, const std::string& got) { peer.send(answer(got, "abc")); }, options);
    ASSERT_FALSE(response);
    EXPECT_EQ(response.error().code, ErrorCode::unavailable);
}

TEST_F(HttpClientTest, skips_what_earlier_requests_left_in_the_stream) {
    const auto response = ask([](RawPeer& peer, const std::string& got) {
        peer.send("end of a body" + answer("x-request-id: 0\r\n", "old"));
        peer.send(answer(got, "new"));
    });
    ASSERT_TRUE(response) << response.error().describe();
    EXPECT_EQ(response->body, "new");
}

TEST_F(HttpClientTest, skips_an_earlier_answer_that_was_cut_within_its_header) {
    const auto response = ask([](RawPeer& peer, const std::string& got) {
        peer.send("HTTP/1.1 500 Internal Server Error\r\nContent-Le" + answer(got, "new"));
    });
    ASSERT_TRUE(response) << response.error().describe();
    EXPECT_EQ(response->status, 200);
    EXPECT_EQ(response->body, "new");
}

TEST_F(HttpClientTest, finds_an_answer_that_comes_byte_by_byte) {
    const auto response = ask([](RawPeer& peer, const std::string& got) {
        for (const char byte : "left over " + answer(got, "new"))
            peer.send({&byte, 1});
    });
    ASSERT_TRUE(response) << response.error().describe();
    EXPECT_EQ(response->body, "new");
}

TEST_F(HttpClientTest, takes_a_long_body_that_comes_byte_by_byte) {
    const std::string body(5000, 'a');
    const auto response = ask([&](RawPeer& peer, const std::string& got) {
        for (const char byte : answer(got, body))
            peer.send({&byte, 1});
    });
    ASSERT_TRUE(response) << response.error().describe();
    EXPECT_EQ(response->body, body);
}

TEST_F(HttpClientTest, gives_up_a_peer_that_sends_rubbish_without_end) {
    const auto response = ask([](RawPeer& peer, const std::string&) {
        while (peer.send(std::string(65536, 'x'))) {
        }
    });
    ASSERT_FALSE(response);
    EXPECT_EQ(response.error().code, ErrorCode::corrupt_data);
}

TEST_F(HttpClientTest, times_out_at_a_silent_peer) {
    const auto response = ask([](RawPeer&, const std::string&) {}, within(20ms));
    ASSERT_FALSE(response);
    EXPECT_EQ(response.error().code, ErrorCode::timeout);
}

TEST_F(HttpClientTest, times_out_at_an_answer_that_comes_too_slowly) {
    int sent = 0;
    const auto response = ask(
        [&](RawPeer& peer, const std::string& got) {
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n" + id_of(got) + "\r\n");
            // Paced by waiting for an end that comes with the client's deadline.
            while (sent < 1000 && peer.send("a") && !peer.is_answered_within(5ms))
                ++sent;
        },
        within(50ms));
    ASSERT_FALSE(response);
    EXPECT_EQ(response.error().code, ErrorCode::timeout);
    EXPECT_LT(sent, 1000);
}

TEST_F(HttpClientTest, says_that_the_peer_closed_early) {
    const auto response = ask([](RawPeer& peer, const std::string& got) {
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n" + id_of(got) + "\r\nabc");
        peer.close();
    });
    ASSERT_FALSE(response);
    EXPECT_EQ(response.error().code, ErrorCode::unavailable);
    EXPECT_THAT(response.error().message, HasSubstr("closed"));
}

TEST_F(HttpClientTest, refuses_a_body_over_the_cap) {
    auto options = within(tests::patience);
    options.max_body_bytes = 10;
    const auto response = ask(
        [](RawPeer& peer, const std::string& got) { peer.send(answer(got, std::string(11, 'a'))); },
        options);
    ASSERT_FALSE(response);
    EXPECT_EQ(response.error().code, ErrorCode::corrupt_data);
    EXPECT_THAT(response.error().message, HasSubstr("10 bytes"));
}

TEST_F(HttpClientTest, refuses_a_status_line_without_end) {
    const auto response = ask([](RawPeer& peer, const std::string& got) {
        peer.send("HTTP/1.1 200 \r\n" + id_of(got));
        while (peer.send(std::string(1024, 'a'))) {
        }
    });
    ASSERT_FALSE(response);
    EXPECT_EQ(response.error().code, ErrorCode::corrupt_data);
}

TEST_F(HttpClientTest, takes_a_status_line_as_long_as_a_line_may_be) {
    const auto response = ask([](RawPeer& peer, const std::string& got) {
        peer.send("HTTP/1.1 200 " + std::string(1000, 'a') + "\r\n" + id_of(got) +
                  "Content-Length: 0\r\n\r\n");
    });
    EXPECT_TRUE(response) << response.error().describe();
}

TEST_F(HttpClientTest, refuses_a_chunk_size_without_end) {
    const auto response = ask([](RawPeer& peer, const std::string& got) {
        peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n" + id_of(got) + "\r\n");
        while (peer.send(std::string(1024, '0'))) {
        }
    });
    ASSERT_FALSE(response);
    EXPECT_EQ(response.error().code, ErrorCode::corrupt_data);
}

TEST(HttpConnectors, connect_unix_reaches_a_server) {
    const tests::TemporaryDirectory folder;
    const auto listener = tests::listen_on_unix(folder / "socket");
    std::thread thread([&] {
        const auto fd = tests::accept_one(listener);
        HttpServer server(
            [](const HttpRequest&) {
                return HttpResponse{200, "text/plain", "hi"};
            },
            {});
        server.serve(fd.get());
    });
    const auto response = send_request(connect_unix(folder / "socket"), post_request());
    thread.join();
    ASSERT_TRUE(response) << response.error().describe();
    EXPECT_EQ(response->body, "hi");
}

TEST(HttpConnectors, connect_unix_says_that_nobody_listens) {
    const tests::TemporaryDirectory folder;
    const auto fd = connect_unix(folder / "none")();
    ASSERT_FALSE(fd);
    EXPECT_EQ(fd.error().code, ErrorCode::unavailable);
    EXPECT_THAT(fd.error().message, HasSubstr(folder / "none"));
}

TEST(HttpConnectors, connect_unix_refuses_a_path_too_long_for_a_socket) {
    const auto fd = connect_unix("/" + std::string(200, 'a'))();
    ASSERT_FALSE(fd);
    EXPECT_EQ(fd.error().code, ErrorCode::invalid_argument);
}

TEST(HttpConnectors, connect_tcp_reaches_a_listener) {
    const UniqueFd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    auto* const raw = reinterpret_cast<sockaddr*>(&address);
    ASSERT_EQ(::bind(listener.get(), raw, size), 0);
    ASSERT_EQ(::listen(listener.get(), 1), 0);
    ASSERT_EQ(::getsockname(listener.get(), raw, &size), 0);
    EXPECT_TRUE(connect_tcp("127.0.0.1", ntohs(address.sin_port), tests::patience)());
}

TEST(HttpConnectors, connect_tcp_says_that_nobody_listens) {
    const UniqueFd unused(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    auto* const raw = reinterpret_cast<sockaddr*>(&address);
    ASSERT_EQ(::bind(unused.get(), raw, size), 0);
    ASSERT_EQ(::getsockname(unused.get(), raw, &size), 0);
    const auto fd = connect_tcp("127.0.0.1", ntohs(address.sin_port), tests::patience)();
    ASSERT_FALSE(fd);
    EXPECT_EQ(fd.error().code, ErrorCode::unavailable);
}

TEST(HttpConnectors, connect_tcp_refuses_a_host_name) {
    const auto fd = connect_tcp("localhost", 80, 1s)();
    ASSERT_FALSE(fd);
    EXPECT_EQ(fd.error().code, ErrorCode::invalid_argument);
}

TEST(HttpConnectors, open_device_says_which_device_is_missing) {
    const auto fd = open_device("/dev/virtio-ports/none")();
    ASSERT_FALSE(fd);
    EXPECT_EQ(fd.error().code, ErrorCode::not_found);
    EXPECT_THAT(fd.error().message, HasSubstr("/dev/virtio-ports/none"));
}

} // namespace
} // namespace host_runner::net

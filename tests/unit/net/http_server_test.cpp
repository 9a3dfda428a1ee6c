// SPDX-License-Identifier: Apache-2.0
#include "host_runner/net/http_server.hpp"

#include <future>
#include <map>
#include <optional>
#include <thread>

#include <fcntl.h>
#include <stdlib.h>
#include <termios.h>

#include <gmock/gmock.h>

#include "fakes/raw_peer.hpp"

namespace host_runner::net {
namespace {

using namespace std::chrono_literals;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;
using tests::RawPeer;

std::string post(const std::string& target, const std::string& body,
                 const std::string& headers = {}) {
    return "POST " + target + " HTTP/1.1\r\nContent-Length: " + std::to_string(body.size()) +
           "\r\n" + headers + "\r\n" + body;
}

/// A server in a thread that closes its end of the stream when serve() returns.
class HttpServerTest : public ::testing::Test {
protected:
    HttpServerTest() {
        limits_.max_header_bytes = 1024;
        limits_.max_body_bytes = 1024;
    }
    ~HttpServerTest() override {
        if (server_)
            server_->interrupt();
        if (thread_.joinable())
            thread_.join();
    }

    RawPeer start() {
        auto [ours, theirs] = tests::connected_pair();
        start_on(std::move(ours));
        return RawPeer(std::move(theirs));
    }

    void start_on(UniqueFd fd) {
        server_.emplace(
            [this](const HttpRequest& request) {
                last_ = request;
                return response_;
            },
            limits_);
        for (const auto& [path, handler] : streams_)
            server_->set_streaming(path, handler);
        thread_ = std::thread([this, end = std::move(fd)]() mutable {
            server_->serve(end.get());
            end.reset();
            ended_.set_value();
        });
    }

    /// True when serve() returns.
    bool ends() {
        return ended_.get_future().wait_for(tests::patience) == std::future_status::ready;
    }

    HttpLimits limits_;
    HttpResponse response_{200, "application/json", "null"};
    HttpRequest last_; ///< To be read when its answer has come.
    std::map<std::string, StreamingHandler> streams_;
    std::optional<HttpServer> server_;
    std::promise<void> ended_;
    std::thread thread_;
};

TEST_F(HttpServerTest, answers_with_the_handlers_status_type_and_body) {
    response_ = {409, "text/plain", "no way"};
    auto peer = start();
    peer.send(post("/x", "{}"));
    const auto answer = peer.receive_until("no way");
    EXPECT_THAT(answer, StartsWith("HTTP/1.1 409 "));
    EXPECT_THAT(answer, HasSubstr("Content-Type: text/plain\r\n"));
    EXPECT_THAT(answer, HasSubstr("Content-Length: 6\r\n"));
}

TEST_F(HttpServerTest, gives_the_handler_method_path_query_and_body) {
    auto peer = start();
    peer.send(post("/api/Notify?json", "{\"a\":1}"));
    peer.receive_until("null");
    EXPECT_EQ(last_.method, "POST");
    EXPECT_EQ(last_.path, "/api/Notify");
    EXPECT_EQ(last_.query, "json");
    EXPECT_EQ(last_.body, "{\"a\":1}");
}

TEST_F(HttpServerTest, gives_the_handler_header_names_in_lower_case) {
    auto peer = start();
    peer.send(post("/", "", "X-Some-Header: Value\r\n"));
    peer.receive_until("null");
    EXPECT_EQ(last_.headers["x-some-header"], "Value");
}

TEST_F(HttpServerTest, gives_the_handler_the_bodies_of_forms_as_they_are) {
    auto peer = start();
    peer.send(post("/", "a=1&b=2", "Content-Type: multipart/form-data; boundary=x\r\n"));
    peer.receive_until("null");
    EXPECT_EQ(last_.body, "a=1&b=2");
    EXPECT_EQ(last_.headers["content-type"], "multipart/form-data; boundary=x");
}

TEST_F(HttpServerTest, takes_a_request_without_a_length_as_one_without_a_body) {
    auto peer = start();
    peer.send("POST /x HTTP/1.1\r\n\r\n");
    EXPECT_THAT(peer.receive_until("null"), StartsWith("HTTP/1.1 200 "));
    EXPECT_THAT(last_.body, IsEmpty());
}

TEST_F(HttpServerTest, ignores_a_range) {
    auto peer = start();
    peer.send(post("/", "", "Range: bytes=0-0\r\n"));
    EXPECT_THAT(peer.receive_until("null"), StartsWith("HTTP/1.1 200 "));
}

TEST_F(HttpServerTest, takes_a_chunked_body) {
    auto peer = start();
    peer.send(
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
    peer.receive_until("null");
    EXPECT_EQ(last_.body, "abcde");
}

TEST_F(HttpServerTest, answers_pipelined_requests_in_order) {
    auto peer = start();
    peer.send(post("/", "", "x-request-id: one\r\n") + post("/", "", "x-request-id: two\r\n"));
    EXPECT_THAT(peer.receive_until("null"), HasSubstr("x-request-id: one\r\n"));
    EXPECT_THAT(peer.receive_until("null"), HasSubstr("x-request-id: two\r\n"));
}

TEST_F(HttpServerTest, sends_no_id_back_that_could_end_a_header) {
    auto peer = start();
    peer.send(post("/", "", "x-request-id: a%0d%0aEvil: 1\r\n"));
    EXPECT_THAT(peer.receive_until("null"), Not(HasSubstr("Evil")));
}

TEST_F(HttpServerTest, closes_when_the_peer_asks_for_it) {
    auto peer = start();
    peer.send(post("/", "", "Connection: close\r\n"));
    EXPECT_THAT(peer.receive_all(), EndsWith("null"));
}

TEST_F(HttpServerTest, ends_when_the_peer_closes) {
    auto peer = start();
    peer.close();
    EXPECT_TRUE(ends());
}

TEST_F(HttpServerTest, ends_when_interrupted) {
    const auto peer = start();
    server_->interrupt();
    EXPECT_TRUE(ends());
}

TEST_F(HttpServerTest, answers_431_and_closes_for_endless_headers) {
    auto peer = start();
    peer.send("POST / HTTP/1.1\r\n");
    while (peer.send("A: " + std::string(100, 'b') + "\r\n") && !peer.is_answered_within(0ms)) {
    }
    EXPECT_THAT(peer.receive_all(), StartsWith("HTTP/1.1 431 "));
}

TEST_F(HttpServerTest, answers_431_and_closes_for_an_endless_request_line) {
    auto peer = start();
    peer.send("POST /" + std::string(2000, 'a'));
    EXPECT_THAT(peer.receive_all(), StartsWith("HTTP/1.1 431 "));
}

TEST_F(HttpServerTest, answers_413_and_closes_for_a_body_over_the_cap) {
    auto peer = start();
    peer.send(post("/", std::string(1025, 'a')));
    EXPECT_THAT(peer.receive_all(), StartsWith("HTTP/1.1 413 "));
}

TEST_F(HttpServerTest, answers_413_and_closes_for_a_chunked_body_over_the_cap) {
    auto peer = start();
    peer.send("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\nabc");
    EXPECT_THAT(peer.receive_all(), StartsWith("HTTP/1.1 413 "));
}

TEST_F(HttpServerTest, closes_at_an_endless_chunk_size) {
    auto peer = start();
    peer.send("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n");
    while (peer.send(std::string(1024, '0')) && !peer.is_answered_within(0ms)) {
    }
    EXPECT_THAT(peer.receive_all(), StartsWith("HTTP/1.1 4"));
}

TEST_F(HttpServerTest, answers_400_and_closes_for_garbage) {
    auto peer = start();
    peer.send("\x01\x02garbage\r\n\r\n");
    EXPECT_THAT(peer.receive_all(), StartsWith("HTTP/1.1 400 "));
}

TEST_F(HttpServerTest, answers_408_and_closes_when_a_request_stops_half_way) {
    limits_.request_timeout = 30ms;
    auto peer = start();
    peer.send("POST / HT");
    EXPECT_THAT(peer.receive_all(), StartsWith("HTTP/1.1 408 "));
}

TEST_F(HttpServerTest, cuts_a_peer_that_sends_byte_by_byte) {
    limits_.request_timeout = 50ms;
    auto peer = start();
    peer.send("POST / HTTP/1.1\r\nA: ");
    int sent = 0;
    // Each byte comes in time, the whole does not; 500 bytes are still below the header cap.
    while (sent < 500 && peer.send("a") && !peer.is_answered_within(5ms))
        ++sent;
    EXPECT_LT(sent, 500);
    EXPECT_THAT(peer.receive_all(), StartsWith("HTTP/1.1 408 "));
}

TEST_F(HttpServerTest, closes_an_idle_stream_without_a_word) {
    limits_.idle_timeout = 10ms;
    auto peer = start();
    EXPECT_EQ(peer.receive_all(), "");
}

TEST_F(HttpServerTest, gives_up_a_peer_that_does_not_read_its_answer) {
    limits_.response_timeout = 30ms;
    response_.body = std::string(8 << 20, 'a');
    auto peer = start();
    peer.send(post("/", ""));
    EXPECT_TRUE(ends());
}

TEST_F(HttpServerTest, sends_each_piece_of_a_stream_at_once) {
    std::promise<void> first_has_come;
    streams_["/stream"] = [&](const HttpRequest&, const ChunkWriter& write) {
        write("one\n");
        first_has_come.get_future().wait_for(tests::patience);
        write("two\n");
    };
    auto peer = start();
    peer.send(post("/stream?json", "{}"));
    const auto begin = peer.receive_until("one\n");
    first_has_come.set_value();
    EXPECT_THAT(begin, HasSubstr("Content-Type: application/jsonl\r\n"));
    EXPECT_THAT(begin, HasSubstr("Transfer-Encoding: chunked\r\n"));
    EXPECT_EQ(peer.receive_until("0\r\n\r\n"), "\r\n4\r\ntwo\n\r\n0\r\n\r\n");
}

TEST_F(HttpServerTest, serves_on_after_a_stream) {
    streams_["/stream"] = [](const HttpRequest&, const ChunkWriter& write) {
        write("one\n");
    };
    auto peer = start();
    peer.send(post("/stream", "") + post("/other", ""));
    peer.receive_until("0\r\n\r\n");
    EXPECT_THAT(peer.receive_until("null"), StartsWith("HTTP/1.1 200 "));
}

TEST_F(HttpServerTest, tells_a_streaming_handler_that_its_peer_has_gone) {
    std::promise<void> gone;
    streams_["/stream"] = [&](const HttpRequest&, const ChunkWriter& write) {
        while (write("more\n")) {
        }
        gone.set_value();
    };
    auto peer = start();
    peer.send(post("/stream", ""));
    peer.receive_until("more\n");
    peer.close();
    EXPECT_EQ(gone.get_future().wait_for(tests::patience), std::future_status::ready);
}

/// A terminal in line mode stands for a virtio-serial port: it is a character device, and its
/// end-of-file character makes one read return 0 bytes while the other side stays connected.
class HttpServerOnDeviceTest : public HttpServerTest {
protected:
    void SetUp() override {
        host_.reset(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
        ASSERT_TRUE(host_);
        ASSERT_EQ(::grantpt(host_.get()), 0);
        ASSERT_EQ(::unlockpt(host_.get()), 0);
        UniqueFd guest(::open(::ptsname(host_.get()), O_RDWR | O_NOCTTY | O_CLOEXEC));
        ASSERT_TRUE(guest);
        termios settings{};
        ASSERT_EQ(::tcgetattr(guest.get(), &settings), 0);
        settings.c_iflag = 0;
        settings.c_oflag = 0;
        settings.c_lflag = ICANON;
        ASSERT_EQ(::tcsetattr(guest.get(), TCSANOW, &settings), 0);
        start_on(std::move(guest));
    }
    void write_to_guest(std::string_view bytes) const {
        ASSERT_EQ(::write(host_.get(), bytes.data(), bytes.size()),
                  static_cast<ssize_t>(bytes.size()));
    }
    [[nodiscard]] std::string read_until(std::string_view end) const {
        std::string got;
        char byte = 0;
        while (got.find(end) == std::string::npos &&
               tests::is_readable_within(host_.get(), tests::patience) &&
               ::read(host_.get(), &byte, 1) == 1)
            got += byte;
        return got;
    }
    UniqueFd host_;
};

TEST_F(HttpServerOnDeviceTest, answers) {
    write_to_guest(post("/", "{}\n"));
    EXPECT_THAT(read_until("null"), StartsWith("HTTP/1.1 200 "));
}

TEST_F(HttpServerOnDeviceTest, waits_over_a_read_of_nothing_while_the_host_is_connected) {
    write_to_guest("\x04");
    write_to_guest(post("/", "{}\n"));
    EXPECT_THAT(read_until("null"), StartsWith("HTTP/1.1 200 "));
}

/// A host that leaves and comes back at once may have been away unnoticed.
class StreamOnDeviceTest : public HttpServerOnDeviceTest {
protected:
    StreamOnDeviceTest() {
        streams_["/stream"] = [](const HttpRequest&, const ChunkWriter& write) {
            while (write("more\n"))
                std::this_thread::yield();
        };
    }
};

TEST_F(StreamOnDeviceTest, is_over_when_somebody_else_asks) {
    write_to_guest(post("/stream", "{}\n"));
    EXPECT_THAT(read_until("more\n"), HasSubstr("more"));
    write_to_guest(post("/", "{}\n"));
    EXPECT_THAT(read_until("null"), HasSubstr("HTTP/1.1 200 "));
}

TEST_F(HttpServerOnDeviceTest, ends_when_the_host_closes) {
    host_.reset();
    EXPECT_TRUE(ends());
}

} // namespace
} // namespace host_runner::net

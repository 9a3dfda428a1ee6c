// SPDX-License-Identifier: Apache-2.0
//
// A real component (tests/fixtures/wasm_http) behind a real socket. What a test has to wait for is
// something the peer sends, or an event of the server.
#include "host_runner/wasm/http_server.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <thread>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <gmock/gmock.h>
#include <openssl/ssl.h>

#include "fakes/tls_identity.hpp"
#include "host_runner/base/files.hpp"
#include "host_runner/wasm/compile.hpp"
#include "host_runner/wasm/engine.hpp"

namespace host_runner::wasm {
namespace {

using namespace std::chrono_literals;
using testing::AllOf;
using testing::EndsWith;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::StartsWith;

/// Also on a machine that is busy with other things.
constexpr auto patience = 60s;

std::string fixture() {
    return read_file(HOST_RUNNER_SOURCE_DIR "/tests/fixtures/wasm_http/service.wasm", 1 << 20)
        .value_or("");
}

/// Compiled once a process.
const std::string& artifact() {
    static const std::string made = [] {
        auto compiled = compile(fixture());
        EXPECT_TRUE(compiled) << compiled.error().describe();
        return compiled.value_or("");
    }();
    return made;
}

sockaddr_in loopback(std::uint16_t port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

/// Keeps the events, and lets a test wait for one.
class Events {
public:
    void add(HttpKind kind, std::string_view text) {
        const std::lock_guard lock(mutex_);
        seen_.emplace_back(kind, text);
        changed_.notify_all();
    }
    /// @return its text; "" when it did not come
    std::string wait_for(HttpKind kind) {
        std::unique_lock lock(mutex_);
        std::string text;
        changed_.wait_for(lock, patience, [&] {
            for (const auto& [seen, words] : seen_)
                if (seen == kind) {
                    text = words;
                    return true;
                }
            return false;
        });
        return text;
    }

private:
    std::mutex mutex_;
    std::condition_variable changed_;
    std::vector<std::pair<HttpKind, std::string>> seen_;
};

/// A client, byte by byte.
class Client {
public:
    explicit Client(std::uint16_t port) : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
        const auto address = loopback(port);
        connected_ =
            ::connect(fd_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
        const timeval limit{60, 0};
        ::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    }
    [[nodiscard]] bool connected() const noexcept {
        return connected_;
    }
    [[nodiscard]] int fd() const noexcept {
        return fd_.get();
    }
    void send(std::string_view bytes) const {
        while (!bytes.empty()) {
            const auto count = ::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
            ASSERT_GT(count, 0) << errno;
            bytes.remove_prefix(static_cast<std::size_t>(count));
        }
    }
    /// Reads until `text` was there.
    std::string until(std::string_view text) {
        std::string seen;
        while (seen.find(text) == std::string::npos) {
            std::array<char, 4096> buffer{};
            const auto count = ::read(fd_.get(), buffer.data(), 1);
            if (count <= 0) {
                ADD_FAILURE() << "the server ended the connection after: " << seen;
                break;
            }
            seen.append(buffer.data(), static_cast<std::size_t>(count));
        }
        return seen;
    }
    /// Reads until the server closes.
    [[nodiscard]] std::string rest() const {
        std::string seen;
        std::array<char, 65536> buffer{};
        for (;;) {
            const auto count = ::read(fd_.get(), buffer.data(), buffer.size());
            if (count <= 0) {
                EXPECT_TRUE(count == 0 || errno == ECONNRESET) << errno;
                return seen;
            }
            seen.append(buffer.data(), static_cast<std::size_t>(count));
        }
    }

private:
    UniqueFd fd_;
    bool connected_ = false;
};

std::string request(std::string_view path, std::string_view more = {}) {
    return "GET " + std::string(path) + " HTTP/1.1\r\nHost: test\r\n" + std::string(more) + "\r\n";
}

std::string chunk(std::string_view bytes) {
    std::array<char, 16> size{};
    std::snprintf(size.data(), size.size(), "%zx\r\n", bytes.size());
    return size.data() + std::string(bytes) + "\r\n";
}

class Http : public testing::Test {
protected:
    Http() {
        settings.places = 4;
        settings.environment = {"GREETING=good morning"};
        settings.request_timeout = patience;
        settings.on_event = [this](HttpKind kind, std::string_view text) {
            events.add(kind, text);
        };
    }
    /// @return a socket that listens, and its port
    static std::pair<UniqueFd, std::uint16_t> listener() {
        UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
        auto address = loopback(0);
        socklen_t size = sizeof address;
        EXPECT_EQ(::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
        EXPECT_EQ(::listen(fd.get(), 100), 0);
        EXPECT_EQ(::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
        return {std::move(fd), ntohs(address.sin_port)};
    }
    HttpServer start() {
        auto [fd, at] = listener();
        port = at;
        auto server = HttpServer::start(artifact(), std::move(fd), settings);
        if (!server)
            throw std::runtime_error(server.error().describe());
        return std::move(*server);
    }
    /// The whole answer to one request on a connection of its own.
    [[nodiscard]] std::string get(std::string_view path) const {
        const Client client(port);
        client.send(request(path, "Connection: close\r\n"));
        return client.rest();
    }
    /// One that a guest is answering: its first piece came back.
    [[nodiscard]] Client echoing() const {
        Client client(port);
        client.send("POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n" +
                    chunk("first"));
        EXPECT_THAT(client.until("first"), StartsWith("HTTP/1.1 200 "));
        return client;
    }

    Events events;
    HttpServerSettings settings;
    std::uint16_t port = 0;
};

TEST_F(Http, answers_with_what_the_component_says) {
    const auto server = start();
    const auto answer = get("/");
    EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 OK\r\n"));
    EXPECT_THAT(answer, HasSubstr("hello\n"));
    EXPECT_THAT(answer, HasSubstr("good morning"));
    EXPECT_EQ(server.count(HttpKind::request), 1U);
}

TEST_F(Http, keeps_a_connection_for_the_next_request) {
    const auto server = start();
    Client client(port);
    for (int i = 0; i < 3; ++i) {
        client.send(request("/"));
        EXPECT_THAT(client.until("0\r\n\r\n"), HasSubstr("hello"));
    }
    EXPECT_EQ(server.count(HttpKind::connection), 1U);
    EXPECT_EQ(server.count(HttpKind::request), 3U);
}

TEST_F(Http, counts_where_it_is_told_to_on_top_of_what_is_there) {
    std::array<std::uint64_t, http_kinds> counters{};
    constexpr auto requests = static_cast<std::size_t>(HttpKind::request);
    counters[requests] = 40;
    settings.counters = counters.data();
    const auto server = start();
    static_cast<void>(get("/"));
    static_cast<void>(get("/"));
    EXPECT_EQ(server.count(HttpKind::request), 42U);
    EXPECT_EQ(std::atomic_ref(counters[requests]).load(), 42U);
}

TEST_F(Http, hands_on_the_headers) {
    const auto server = start();
    Client client(port);
    client.send(request("/headers", "X-Test: some value\r\n"));
    EXPECT_THAT(client.until("0\r\n\r\n"), AllOf(HasSubstr("x-test"), HasSubstr("some value")));
}

TEST_F(Http, streams_both_bodies_at_the_same_time) {
    const auto server = start();
    auto client = echoing();
    client.send(chunk("second"));
    EXPECT_THAT(client.until("second"), HasSubstr("second"));
    client.send("0\r\n\r\n");
    EXPECT_THAT(client.until("0\r\n\r\n"), EndsWith("0\r\n\r\n"));
}

TEST_F(Http, streams_bodies_larger_than_an_instance) {
    settings.memory_bytes = 1U << 20U;
    const auto server = start();
    const Client client(port);
    constexpr std::size_t size = 8U << 20U;
    std::thread writer([&] {
        client.send("POST /echo HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: " +
                    std::to_string(size) + "\r\n\r\n" + std::string(size, 'x'));
    });
    const auto answer = client.rest();
    writer.join();
    EXPECT_THAT(answer.substr(0, 100), StartsWith("HTTP/1.1 200 "));
    EXPECT_EQ(static_cast<std::size_t>(std::count(answer.begin(), answer.end(), 'x')), size);
    EXPECT_THAT(answer.substr(answer.size() - 100), EndsWith("0\r\n\r\n"));
}

TEST_F(Http, sends_a_large_answer_whole) {
    const auto server = start();
    const auto answer = get("/big");
    EXPECT_GT(answer.size(), std::size_t{8} << 20U);
    EXPECT_TRUE(answer.ends_with("\r\n0\r\n\r\n"));
}

TEST_F(Http, answers_500_for_a_trap_while_others_are_served) {
    const auto server = start();
    auto other = echoing();
    EXPECT_THAT(get("/trap"), StartsWith("HTTP/1.1 500 "));
    EXPECT_THAT(events.wait_for(HttpKind::trapped), HasSubstr("unreachable"));
    EXPECT_EQ(server.count(HttpKind::trapped), 1U);
    other.send(chunk("second") + "0\r\n\r\n");
    EXPECT_THAT(other.until("0\r\n\r\n"), HasSubstr("second"));
    EXPECT_THAT(get("/"), HasSubstr("hello"));
}

TEST_F(Http, breaks_off_the_answer_of_a_guest_that_traps_in_its_middle) {
    const auto server = start();
    EXPECT_THAT(get("/late"), Not(EndsWith("0\r\n\r\n")));
}

TEST_F(Http, answers_500_for_a_guest_that_does_not) {
    const auto server = start();
    EXPECT_THAT(get("/silent"), StartsWith("HTTP/1.1 500 "));
    EXPECT_THAT(events.wait_for(HttpKind::guest_failed), HasSubstr("without an answer"));
}

TEST_F(Http, ends_a_guest_that_computes_or_waits_too_long_and_serves_others_meanwhile) {
    settings.threads = 1;
    settings.request_timeout = 1s;
    const auto server = start();
    const Client spinning(port);
    const Client sleeping(port);
    spinning.send(request("/spin", "Connection: close\r\n"));
    sleeping.send(request("/sleep", "Connection: close\r\n"));
    EXPECT_THAT(get("/"), HasSubstr("hello"));
    EXPECT_THAT(spinning.rest(), StartsWith("HTTP/1.1 504 "));
    EXPECT_THAT(sleeping.rest(), StartsWith("HTTP/1.1 504 "));
    EXPECT_EQ(server.count(HttpKind::timed_out), 2U);
    EXPECT_THAT(get("/"), HasSubstr("hello"));
}

TEST_F(Http, answers_503_for_a_guest_that_wants_too_much_memory) {
    settings.memory_bytes = 8U << 20U;
    const auto server = start();
    EXPECT_THAT(get("/memory"), StartsWith("HTTP/1.1 503 "));
    EXPECT_EQ(server.count(HttpKind::out_of_memory), 1U);
    EXPECT_THAT(get("/"), HasSubstr("hello"));
}

TEST_F(Http, answers_503_when_all_places_are_taken) {
    settings.places = 1;
    settings.wait_for_place = 0ms;
    const auto server = start();
    auto first = echoing();
    const auto answer = get("/");
    EXPECT_THAT(answer, StartsWith("HTTP/1.1 503 "));
    EXPECT_THAT(answer, HasSubstr("retry-after: 1\r\n"));
    EXPECT_EQ(server.count(HttpKind::rejected), 1U);
    first.send("0\r\n\r\n");
    EXPECT_THAT(first.until("0\r\n\r\n"), EndsWith("0\r\n\r\n"));
}

TEST_F(Http, waits_for_a_place_that_a_client_gives_up_by_leaving) {
    settings.places = 1;
    settings.wait_for_place = patience;
    const auto server = start();
    std::optional<Client> first = echoing();
    const Client second(port);
    second.send(request("/", "Connection: close\r\n"));
    first.reset();
    EXPECT_THAT(second.rest(), HasSubstr("hello"));
}

TEST_F(Http, ends_the_instance_of_a_client_that_left) {
    settings.places = 1;
    settings.wait_for_place = patience;
    const auto server = start();
    {
        Client first(port);
        first.send(request("/pause"));
        EXPECT_THAT(first.until("pausing"), StartsWith("HTTP/1.1 200 "));
    }
    EXPECT_THAT(get("/"), HasSubstr("hello"));
    EXPECT_EQ(server.count(HttpKind::client_gone), 1U);
}

TEST_F(Http, closes_connections_of_clients_that_are_too_slow) {
    settings.header_timeout = 100ms;
    settings.idle_timeout = patience;
    {
        const auto server = start();
        const Client slow(port);
        slow.send("GET / HTTP/1.1\r\nHos");
        EXPECT_THAT(slow.rest(), IsEmpty());
        EXPECT_EQ(server.count(HttpKind::client_too_slow), 1U);
    }
    settings.header_timeout = patience;
    settings.idle_timeout = 100ms;
    const auto server = start();
    EXPECT_THAT(Client(port).rest(), IsEmpty());
    Client used(port);
    used.send(request("/"));
    EXPECT_THAT(used.until("0\r\n\r\n"), HasSubstr("hello"));
    EXPECT_THAT(used.rest(), IsEmpty());
}

TEST_F(Http, ends_a_body_that_comes_too_slowly) {
    settings.body_timeout = 100ms;
    const auto server = start();
    auto client = echoing();
    EXPECT_THAT(client.until("0\r\n\r\n"), HasSubstr("[the body is incomplete]"));
}

TEST_F(Http, refuses_requests_that_are_too_large_or_name_no_host) {
    settings.request_body_bytes = 10;
    settings.header_bytes = 8192;
    const auto server = start();
    const auto answer_to = [&](const std::string& bytes) {
        const Client client(port);
        client.send(bytes);
        return client.rest();
    };
    EXPECT_THAT(answer_to("POST /echo HTTP/1.1\r\nHost: test\r\nConnection: close\r\n"
                          "Content-Length: 11\r\n\r\nabcdefghijk"),
                StartsWith("HTTP/1.1 413 "));
    EXPECT_THAT(answer_to("GET / HTTP/1.1\r\nConnection: close\r\n\r\n"),
                StartsWith("HTTP/1.1 400 "));
    EXPECT_EQ(server.count(HttpKind::bad_request), 2U);
    EXPECT_THAT(answer_to(request("/", "X: " + std::string(9000, 'x') + "\r\n")),
                StartsWith("HTTP/1.1 431 "));
    // Chunks say their size one by one, so this comes out in the guest.
    EXPECT_THAT(answer_to("POST /echo HTTP/1.1\r\nHost: test\r\nConnection: close\r\n"
                          "Transfer-Encoding: chunked\r\n\r\n" +
                          chunk("abcdefghijk") + "0\r\n\r\n"),
                HasSubstr("[the body is incomplete]"));
}

TEST_F(Http, lets_a_component_send_requests_to_those_on_the_list_only) {
    const auto target = start();
    const auto target_port = std::to_string(port);
    {
        const auto server = start();
        // wasi:http/types error-code 15: HTTP-request-denied.
        EXPECT_THAT(get("/fetch?127.0.0.1:" + target_port),
                    AllOf(HasSubstr("error "), HasSubstr("15")));
        EXPECT_THAT(events.wait_for(HttpKind::outgoing_denied), HasSubstr(target_port));
        EXPECT_EQ(target.count(HttpKind::request), 0U);
    }
    settings.outgoing = {{"other.test:80", "127.0.0.1:" + target_port}};
    const auto server = start();
    const auto answer = get("/fetch?other.test");
    EXPECT_THAT(answer, AllOf(HasSubstr("status "), HasSubstr("200")));
    EXPECT_THAT(answer, HasSubstr("good morning"));
    EXPECT_THAT(get("/fetch?OTHER.test:80"), AllOf(HasSubstr("status "), HasSubstr("200")));
    for (const auto* other : {"other.test:81", "another.test", "user@other.test"})
        EXPECT_THAT(get(std::string("/fetch?") + other),
                    AllOf(HasSubstr("error "), HasSubstr("15")))
            << other;
}

TEST_F(Http, gives_the_descriptors_for_output) {
    const UniqueFd log(::memfd_create("log", MFD_CLOEXEC));
    settings.stderr_fd = log.get();
    const auto server = start();
    EXPECT_THAT(get("/log"), HasSubstr("logged\n"));
    ::lseek(log.get(), 0, SEEK_SET);
    EXPECT_EQ(read_all(log.get(), 1000).value_or(""), "a line of the log\n");
}

TEST_F(Http, speaks_tls_1_3) {
    const auto identity = host_runner::tests::make_identity();
    settings.certificate_pem = identity.certificate;
    settings.key_pem = identity.key;
    const auto server = start();
    const std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)> context(
        SSL_CTX_new(TLS_client_method()), &SSL_CTX_free);
    const auto say_hello = [&](int most) {
        SSL_CTX_set_max_proto_version(context.get(), most);
        const Client client(port);
        const std::unique_ptr<SSL, decltype(&SSL_free)> tls(SSL_new(context.get()), &SSL_free);
        SSL_set_fd(tls.get(), client.fd());
        if (SSL_connect(tls.get()) != 1)
            return std::string();
        const auto bytes = request("/", "Connection: close\r\n");
        EXPECT_GT(SSL_write(tls.get(), bytes.data(), static_cast<int>(bytes.size())), 0);
        std::string answer = SSL_get_version(tls.get());
        std::array<char, 4096> buffer{};
        for (int count = 0;
             (count = SSL_read(tls.get(), buffer.data(), static_cast<int>(buffer.size()))) > 0;)
            answer.append(buffer.data(), static_cast<std::size_t>(count));
        return answer;
    };
    const auto answer = say_hello(TLS1_3_VERSION);
    EXPECT_THAT(answer, StartsWith("TLSv1.3HTTP/1.1 200 "));
    EXPECT_THAT(answer, HasSubstr("good morning"));
    EXPECT_THAT(say_hello(TLS1_2_VERSION), IsEmpty());
    EXPECT_THAT(events.wait_for(HttpKind::tls_failed), Not(IsEmpty()));
}

TEST_F(Http, finishes_what_runs_when_it_stops_and_takes_nothing_new) {
    auto server = start();
    auto running = echoing();
    const Client idle(port);
    std::thread stopping([&] { EXPECT_EQ(server.stop(patience), 0U); });
    EXPECT_THAT(idle.rest(), IsEmpty());
    // Idle connections and the listener are closed in no certain order.
    while (Client(port).connected()) {
    }
    running.send(chunk("second") + "0\r\n\r\n");
    EXPECT_THAT(running.until("0\r\n\r\n"), HasSubstr("second"));
    stopping.join();
    EXPECT_EQ(server.stop(0ms), 0U);
}

TEST_F(Http, gives_up_what_runs_after_the_grace) {
    auto server = start();
    const auto running = echoing();
    EXPECT_EQ(server.stop(50ms), 1U);
    EXPECT_THAT(running.rest(), Not(EndsWith("0\r\n\r\n")));
}

TEST_F(Http, refuses_what_is_no_compiled_component) {
    const auto refused = [&](std::string_view bytes) {
        auto server = HttpServer::start(bytes, listener().first, settings);
        EXPECT_FALSE(server);
        return server ? Error{} : server.error();
    };
    EXPECT_EQ(refused("no native code").code, ErrorCode::corrupt_data);
    EXPECT_EQ(refused("").code, ErrorCode::corrupt_data);
    const auto module = compile(std::string_view("\0asm\1\0\0\0", 8));
    ASSERT_TRUE(module);
    EXPECT_EQ(refused(*module).code, ErrorCode::corrupt_data);
    const auto empty = compile(std::string_view("\0asm\x0d\0\1\0", 8));
    ASSERT_TRUE(empty) << empty.error().describe();
    const auto problem = refused(*empty);
    EXPECT_EQ(problem.code, ErrorCode::unsupported);
    EXPECT_THAT(problem.message, HasSubstr("wasi:http/incoming-handler"));
}

TEST_F(Http, refuses_settings_out_of_range) {
    const auto refused = [&] {
        auto server = HttpServer::start(artifact(), listener().first, settings);
        EXPECT_FALSE(server);
        return server ? std::string() : server.error().message;
    };
    settings.places = 0;
    EXPECT_THAT(refused(), HasSubstr("places"));
    settings.places = 1;
    settings.request_timeout = 0ms;
    EXPECT_THAT(refused(), HasSubstr("request_timeout"));
    settings.request_timeout = 1s;
    settings.environment = {"NOTHING"};
    EXPECT_THAT(refused(), HasSubstr("NOTHING"));
    settings.environment.clear();
    settings.outgoing = {{"other.test:80", "other.test"}};
    EXPECT_THAT(refused(), HasSubstr("no address"));
    settings.outgoing.clear();
    settings.certificate_pem = "no certificate";
    EXPECT_THAT(refused(), HasSubstr("key"));
    settings.key_pem = "no key";
    EXPECT_THAT(refused(), HasSubstr("certificate"));
    EXPECT_FALSE(HttpServer::start(artifact(), UniqueFd(::memfd_create("file", MFD_CLOEXEC)), {}));
}

TEST(CompileComponent, is_what_the_child_does_with_one) {
    const UniqueFd source(::memfd_create("component", MFD_CLOEXEC));
    const UniqueFd target(::memfd_create("artifact", MFD_CLOEXEC));
    ASSERT_TRUE(write_all(source.get(), fixture()));
    ::lseek(source.get(), 0, SEEK_SET);
    ForkExecLauncher launcher;
    const auto done =
        compile_in_child(launcher, {"/proc/self/exe", "compile"}, source.get(), target.get());
    ASSERT_TRUE(done) << done.error().describe();
    ::lseek(target.get(), 0, SEEK_SET);
    EXPECT_EQ(read_all(target.get(), std::size_t{64} << 20U).value_or(""), artifact());
    EXPECT_EQ(compile(std::string_view("\0asm\x0d\0\1\0junk", 12)).error().code,
              ErrorCode::corrupt_data);
}

} // namespace
} // namespace host_runner::wasm

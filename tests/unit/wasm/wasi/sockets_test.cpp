// SPDX-License-Identifier: Apache-2.0
// Sockets, TLS in both directions, and the file list.
#include <thread>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <gmock/gmock.h>

#include "fakes/raw_peer.hpp"
#include "fakes/tls_identity.hpp"
#include "guest.hpp"
#include "host_runner/wasm/wasi/sockets.hpp"

namespace host_runner::wasm::wasi::tests {
namespace {

using host_runner::tests::connected_pair;
using host_runner::tests::Identity;
using host_runner::tests::make_identity;
using ::testing::HasSubstr;

const Identity& identity() {
    static const Identity made = make_identity();
    return made;
}

std::shared_ptr<const TlsServer>
tls_server(std::chrono::milliseconds timeout = host_runner::tests::patience) {
    return TlsServer::create({identity().certificate, identity().key, timeout}).value();
}

std::shared_ptr<const TlsClient> tls_client() {
    return TlsClient::create({identity().certificate, host_runner::tests::patience}).value();
}

std::span<const std::byte> bytes_of(std::string_view text) {
    return std::as_bytes(std::span(text));
}

FileEntry listen_on_loopback(const std::string& name, Protocol protocol = Protocol::tcp) {
    return {.kind = FileKind::listen,
            .name = name,
            .protocol = protocol,
            .address = "127.0.0.1",
            .port = 0};
}

UniqueFd connect_to(std::uint16_t port) {
    UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
        throw std::runtime_error("cannot connect");
    return fd;
}

TEST(WasiSockets, accept_waits_or_says_again) {
    auto opened = open_file_list(std::vector{listen_on_loopback("web")}, {});
    ASSERT_TRUE(opened) << opened.error().describe();
    ContextOptions options;
    options.files = std::move(opened->files);
    Guest guest(std::move(options));
    EXPECT_EQ(guest.call("fd_fdstat_get", {0, Guest::record}), ok);
    EXPECT_EQ(guest.get<std::uint8_t>(Guest::record), 6);
    guest.let_time_pass();
    EXPECT_EQ(guest.call("sock_accept", {0, 0, Guest::result}), trapped(TrapReason::interrupted));
    guest.context->set_deadline({});
    EXPECT_EQ(guest.call("fd_fdstat_set_flags", {0, 4}), ok);
    EXPECT_EQ(guest.call("sock_accept", {0, 0, Guest::result}), again);
    EXPECT_EQ(guest.call("sock_accept", {0, 1, Guest::result}), inval);
    const auto client = connect_to(opened->ports.at(0));
    guest.subscribe(0, 1, 0);
    EXPECT_EQ(guest.poll(1), ok);
    ASSERT_EQ(guest.call("sock_accept", {0, 4, Guest::result}), ok);
    EXPECT_EQ(guest.number(), 1U);
    EXPECT_EQ(guest.read(1, 1), again);
    EXPECT_EQ(guest.call("sock_accept", {1, 0, Guest::result}), inval);
    EXPECT_EQ(guest.receive(0, 1), notconn);
    EXPECT_EQ(guest.send(0, "x"), notconn);
    EXPECT_EQ(guest.read(0, 1), notconn);
    EXPECT_EQ(guest.write(0, "x"), notconn);
    EXPECT_EQ(guest.call("sock_shutdown", {0, 1}), notconn);
    EXPECT_EQ(guest.call("fd_seek", {0, 0, 0, Guest::result}), spipe);
}

TEST(WasiSockets, a_full_table_accepts_nobody) {
    auto opened = open_file_list(std::vector{listen_on_loopback("web")}, {});
    ASSERT_TRUE(opened);
    ContextOptions options;
    options.files = std::move(opened->files);
    options.max_open_files = 1;
    Guest guest(std::move(options));
    EXPECT_EQ(guest.call("sock_accept", {0, 0, Guest::result}), mfile);
}

TEST(WasiSockets, receive_peek_and_wait_for_all) {
    auto [ours, theirs] = connected_pair();
    Guest guest(with_files(Stream{std::move(ours), nullptr}));
    ASSERT_EQ(::write(theirs.get(), "hello", 5), 5);
    EXPECT_EQ(guest.receive(0, 9, 1), ok);
    EXPECT_EQ(guest.got(), "hello");
    EXPECT_EQ(guest.receive(0, 9, 3), notsup);
    EXPECT_EQ(guest.receive(0, 9, 4), inval);
    EXPECT_EQ(guest.receive(0, 5, 2), ok);
    EXPECT_EQ(guest.got(), "hello");
    ASSERT_EQ(::write(theirs.get(), "abc", 3), 3);
    guest.let_time_pass();
    EXPECT_EQ(guest.receive(0, 5, 2), trapped(TrapReason::interrupted));
    theirs.reset();
    EXPECT_EQ(guest.receive(0, 5), ok);
    EXPECT_EQ(guest.number(), 0U);
    EXPECT_EQ(guest.send(0, "x"), pipe);
}

TEST(WasiSockets, send_fills_the_socket_then_says_again) {
    auto [ours, theirs] = connected_pair();
    Guest guest(with_files(Stream{std::move(ours), nullptr}));
    EXPECT_EQ(guest.send(0, "hi"), ok);
    EXPECT_EQ(guest.call("sock_send", {0, Guest::list, 1, 1, Guest::result}), inval);
    EXPECT_EQ(guest.call("fd_fdstat_set_flags", {0, 4}), ok);
    const std::string block(100'000, 'x');
    std::uint32_t answer = ok;
    for (int i = 0; i < 1000 && answer == ok; ++i)
        answer = guest.send(0, block);
    EXPECT_EQ(answer, again);
    EXPECT_EQ(guest.call("fd_fdstat_set_flags", {0, 0}), ok);
    guest.let_time_pass();
    EXPECT_EQ(guest.send(0, block), trapped(TrapReason::interrupted));
}

TEST(WasiSockets, shutdown_ends_one_direction) {
    auto [ours, theirs] = connected_pair();
    Guest guest(with_files(Stream{std::move(ours), nullptr}));
    EXPECT_EQ(guest.call("sock_shutdown", {0, 0}), inval);
    EXPECT_EQ(guest.call("sock_shutdown", {0, 4}), inval);
    EXPECT_EQ(guest.call("sock_shutdown", {0, 2}), ok);
    char byte = 0;
    EXPECT_EQ(::read(theirs.get(), &byte, 1), 0);
    EXPECT_EQ(guest.send(0, "x"), pipe);
    ASSERT_EQ(::write(theirs.get(), "y", 1), 1);
    EXPECT_EQ(guest.receive(0, 1), ok);
    EXPECT_EQ(guest.call("sock_shutdown", {0, 3}), ok);
}

/// Two TLS ends on a socket pair: a guest's stream, and a session of the test.
class WasiTls : public ::testing::Test {
protected:
    /// The guest is the server.
    void start(std::chrono::milliseconds timeout = host_runner::tests::patience) {
        auto [ours, theirs] = connected_pair();
        auto session = tls_server(timeout)->start(ours.get()).value();
        guest_.emplace(with_files(Stream{std::move(ours), std::move(session)}));
        peer_fd_ = std::move(theirs);
        peer_ = tls_client()->start(peer_fd_.get(), "localhost").value();
    }
    /// Both take turns until the peer is done. The guest polls, which is what goes on.
    void shake_hands() {
        for (int i = 0; i < 20 && peer_->handshake().status != TlsStatus::done; ++i) {
            guest_->subscribe(0, 1, 0);
            guest_->subscribe(1, 0, 1, 0);
            ASSERT_EQ(guest_->poll(2), ok);
        }
        ASSERT_TRUE(peer_->is_established()) << peer_->failure();
    }
    std::string peer_reads() {
        std::array<std::byte, 20000> bytes{};
        const auto progress = peer_->read(bytes);
        last_ = progress.status;
        return {reinterpret_cast<const char*>(bytes.data()), progress.bytes};
    }
    std::optional<Guest> guest_;
    UniqueFd peer_fd_;
    std::unique_ptr<TlsSession> peer_;
    TlsStatus last_ = TlsStatus::done;
};

TEST_F(WasiTls, carries_bytes_both_ways) {
    start();
    shake_hands();
    EXPECT_EQ(peer_->write(bytes_of("ping")).bytes, 4U);
    EXPECT_EQ(guest_->receive(0, 9, 1), ok);
    EXPECT_EQ(guest_->got(), "ping");
    guest_->subscribe(0, 1, 0);
    EXPECT_EQ(guest_->poll(1), ok);
    EXPECT_EQ(guest_->get<std::uint64_t>(Guest::record + 16), 4U);
    EXPECT_EQ(guest_->receive(0, 9, 2), notsup);
    EXPECT_EQ(guest_->read(0, 9), ok);
    EXPECT_EQ(guest_->got(), "ping");
    EXPECT_EQ(guest_->write(0, "pong"), ok);
    EXPECT_EQ(peer_reads(), "pong");
    guest_->let_time_pass();
    EXPECT_EQ(guest_->read(0, 9), trapped(TrapReason::interrupted));
    EXPECT_EQ(guest_->call("fd_fdstat_set_flags", {0, 4}), ok);
    EXPECT_EQ(guest_->read(0, 9), again);
}

TEST_F(WasiTls, tells_an_orderly_end_from_a_cut) {
    start();
    shake_hands();
    EXPECT_EQ(peer_->close_notify().status, TlsStatus::done);
    EXPECT_EQ(guest_->read(0, 9), ok);
    EXPECT_EQ(guest_->number(), 0U);
    start();
    shake_hands();
    peer_fd_.reset();
    EXPECT_EQ(guest_->read(0, 9), connreset);
}

TEST_F(WasiTls, shutdown_and_close_tell_the_peer) {
    start();
    shake_hands();
    EXPECT_EQ(guest_->call("sock_shutdown", {0, 2}), ok);
    EXPECT_EQ(peer_reads(), "");
    EXPECT_EQ(last_, TlsStatus::closed);
    start();
    shake_hands();
    EXPECT_EQ(guest_->call("fd_close", {0}), ok);
    EXPECT_EQ(peer_reads(), "");
    EXPECT_EQ(last_, TlsStatus::closed);
    start();
    shake_hands();
    guest_->context->close_files();
    EXPECT_EQ(peer_reads(), "");
    EXPECT_EQ(last_, TlsStatus::closed);
    start();
    shake_hands();
    guest_.reset(); // a trap
    EXPECT_EQ(peer_reads(), "");
    EXPECT_EQ(last_, TlsStatus::truncated);
}

TEST_F(WasiTls, loses_nothing_when_the_socket_is_full) {
    start();
    shake_hands();
    EXPECT_EQ(guest_->call("fd_fdstat_set_flags", {0, 4}), ok);
    std::string sent;
    for (int i = 0; i < 1000; ++i) {
        const std::string block(10'000 + static_cast<std::size_t>(i),
                                static_cast<char>('a' + i % 26));
        if (guest_->write(0, block) != ok)
            break;
        sent += block.substr(0, guest_->number());
    }
    ASSERT_GT(sent.size(), 100'000U);
    std::string received;
    // A look at the stream is enough for the guest's side to send what it has kept.
    for (int i = 0; i < 10'000 && received.size() < sent.size(); ++i) {
        received += peer_reads();
        guest_->read(0, 1);
    }
    EXPECT_TRUE(received == sent) << received.size() << " of " << sent.size();
}

TEST_F(WasiTls, a_silent_client_stalls_nobody_for_long) {
    start(std::chrono::milliseconds(0));
    EXPECT_EQ(guest_->read(0, 1), timedout);
    EXPECT_EQ(guest_->write(0, "x"), timedout);
    guest_->subscribe(0, 1, 0);
    EXPECT_EQ(guest_->poll(1), ok);
    EXPECT_EQ(guest_->event_errno(), timedout);
    start();
    guest_->let_time_pass();
    EXPECT_EQ(guest_->read(0, 1), trapped(TrapReason::interrupted));
}

TEST_F(WasiTls, a_client_that_speaks_no_tls_is_refused) {
    start();
    ASSERT_EQ(::write(peer_fd_.get(), "GET / HTTP/1.1\r\n\r\n", 18), 18);
    EXPECT_EQ(guest_->read(0, 9), connaborted);
    EXPECT_EQ(guest_->read(0, 9), connaborted);
    EXPECT_EQ(guest_->call("fd_close", {0}), ok);
}

TEST(WasiTlsOptions, must_make_sense) {
    const auto code = [](const auto& result) {
        return result ? ErrorCode::internal : result.error().code;
    };
    EXPECT_EQ(code(TlsServer::create({"", identity().key})), ErrorCode::invalid_argument);
    EXPECT_EQ(code(TlsServer::create({identity().certificate, "no key"})),
              ErrorCode::invalid_argument);
    EXPECT_EQ(code(TlsServer::create({identity().certificate, make_identity().key})),
              ErrorCode::invalid_argument);
    EXPECT_EQ(code(TlsClient::create({"nothing"})), ErrorCode::invalid_argument);
    EXPECT_EQ(code(tls_client()->start(0, "")), ErrorCode::invalid_argument);
    EXPECT_EQ(code(tls_client()->start(0, "a b")), ErrorCode::invalid_argument);
}

TEST(WasiFileList, checks_before_it_opens) {
    const auto refused = [](std::vector<FileEntry> list) {
        const auto opened = open_file_list(list, {});
        return opened ? std::string() : opened.error().describe();
    };
    const auto listen = listen_on_loopback("web");
    EXPECT_THAT(refused({listen, listen}), HasSubstr("Two files have the name \"web\""));
    EXPECT_THAT(refused({{.kind = FileKind::null}, {.kind = FileKind::null}}), HasSubstr("null"));
    EXPECT_THAT(refused({listen_on_loopback("")}), HasSubstr("name"));
    EXPECT_THAT(refused({listen_on_loopback("a:b")}), HasSubstr("a:b"));
    EXPECT_THAT(refused({listen_on_loopback("web", Protocol::tls)}), HasSubstr("no certificate"));
    EXPECT_THAT(refused({{.kind = FileKind::connect, .host = "127.0.0.1"}}),
                HasSubstr("nobody to trust"));
    EXPECT_THAT(
        refused({{.kind = FileKind::connect, .protocol = Protocol::tcp, .host = "example.org"}}),
        HasSubstr("not an IPv4 or IPv6 address"));
    EXPECT_THAT(refused({{.kind = FileKind::standard_input},
                         {.kind = FileKind::standard_input, .name = "again"}}),
                HasSubstr("standard stream"));
    EXPECT_THAT(refused(std::vector<FileEntry>(257)), HasSubstr("257"));
}

TEST(WasiFileList, gives_files_names_and_ports_in_order) {
    FileListMeans means;
    means.standard_input = BytesIn{"in"};
    const auto server = open_file_list(std::vector{listen_on_loopback("peer")}, {});
    ASSERT_TRUE(server);
    const FileEntry connect{.kind = FileKind::connect,
                            .protocol = Protocol::tcp,
                            .host = "127.0.0.1",
                            .port = server->ports.at(0)};
    const std::vector<FileEntry> list{{.kind = FileKind::standard_input},
                                      {.kind = FileKind::null},
                                      listen_on_loopback("web"),
                                      connect};
    auto opened = open_file_list(list, std::move(means));
    ASSERT_TRUE(opened) << opened.error().describe();
    EXPECT_TRUE(std::holds_alternative<BytesIn>(opened->files.at(0)));
    EXPECT_TRUE(std::holds_alternative<NullFile>(opened->files.at(1)));
    EXPECT_TRUE(std::holds_alternative<Listener>(opened->files.at(2)));
    EXPECT_TRUE(std::holds_alternative<Stream>(opened->files.at(3)));
    EXPECT_EQ(opened->environment.at(0), std::pair(std::string("FD_COUNT"), std::string("4")));
    EXPECT_EQ(opened->environment.at(1).second, "stdin:null:web:127.0.0.1");
    EXPECT_NE(opened->ports.at(2), 0);
    EXPECT_EQ(opened->ports.at(3), 0);
}

TEST(WasiFileList, an_address_in_use_or_a_refusing_peer_is_named) {
    const auto first = open_file_list(std::vector{listen_on_loopback("web")}, {});
    ASSERT_TRUE(first);
    auto second = listen_on_loopback("other");
    second.port = first->ports.at(0);
    const auto taken = open_file_list(std::vector{second}, {});
    ASSERT_FALSE(taken);
    EXPECT_EQ(taken.error().code, ErrorCode::already_exists);
    // A port that was bound and is free again.
    const auto port = [] {
        return open_file_list(std::vector{listen_on_loopback("web")}, {})->ports.at(0);
    }();
    const auto refused = open_file_list(std::vector<FileEntry>{{.kind = FileKind::connect,
                                                                .protocol = Protocol::tcp,
                                                                .host = "127.0.0.1",
                                                                .port = port}},
                                        {});
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::unavailable);
}

TEST(WasiFileList, a_shared_address_is_shared_with_those_that_say_so_too) {
    auto first = listen_on_loopback("web");
    first.shared = true;
    const auto opened = open_file_list(std::vector{first}, {});
    ASSERT_TRUE(opened) << opened.error().describe();
    auto second = first;
    second.port = opened->ports.at(0);
    EXPECT_TRUE(open_file_list(std::vector{second}, {}));
    second.shared = false;
    EXPECT_EQ(open_file_list(std::vector{second}, {}).error().code, ErrorCode::already_exists);
}

TEST(WasiFileList, connecting_with_tls_checks_the_host_and_the_deadline) {
    auto server = open_file_list(std::vector{listen_on_loopback("web", Protocol::tls)},
                                 {.tls_server = tls_server()});
    ASSERT_TRUE(server);
    const auto port = server->ports.at(0);
    ContextOptions options;
    options.files = std::move(server->files);
    Guest guest(std::move(options));
    // The guest's own connections: one after the other, its peer in a thread.
    const auto connect = [&](const std::string& host) {
        std::optional<Result<OpenedFileList>> opened;
        std::thread client([&] {
            opened = open_file_list(std::vector<FileEntry>{{.kind = FileKind::connect,
                                                            .protocol = Protocol::tls,
                                                            .address = "127.0.0.1",
                                                            .host = host,
                                                            .port = port}},
                                    {.tls_client = tls_client()});
        });
        EXPECT_EQ(guest.call("sock_accept", {0, 0, Guest::result}), ok);
        guest.read(guest.number(), 1); // until the client has gone
        client.join();
        const bool connected = opened->has_value();
        return connected ? std::string() : opened->error().describe();
    };
    EXPECT_THAT(connect("example.org"), HasSubstr("mismatch"));
    CallDeadline past;
    past.at = std::chrono::steady_clock::now();
    const auto late = open_file_list(std::vector<FileEntry>{{.kind = FileKind::connect,
                                                             .protocol = Protocol::tls,
                                                             .host = "127.0.0.1",
                                                             .port = port}},
                                     {.tls_client = tls_client(), .deadline = past});
    ASSERT_FALSE(late);
    EXPECT_EQ(late.error().code, ErrorCode::timeout);
}

TEST(WasiFileList, connects_with_tls) {
    auto server = open_file_list(std::vector{listen_on_loopback("web", Protocol::tls)},
                                 {.tls_server = tls_server()});
    ASSERT_TRUE(server);
    const FileEntry entry{.kind = FileKind::connect,
                          .protocol = Protocol::tls,
                          .host = "127.0.0.1",
                          .port = server->ports.at(0)};
    ContextOptions options;
    options.files = std::move(server->files);
    Guest acceptor(std::move(options));
    std::thread serving([&] {
        EXPECT_EQ(acceptor.call("sock_accept", {0, 0, Guest::result}), ok);
        EXPECT_EQ(acceptor.read(1, 10), ok);
        EXPECT_EQ(acceptor.got(), "hello");
        EXPECT_EQ(acceptor.call("fd_close", {1}), ok);
    });
    auto opened = open_file_list(std::vector{entry}, {.tls_client = tls_client()});
    EXPECT_TRUE(opened) << opened.error().describe();
    if (opened) {
        ContextOptions client_options;
        client_options.files = std::move(opened->files);
        Guest client(std::move(client_options));
        EXPECT_EQ(client.write(0, "hello"), ok);
        EXPECT_EQ(client.read(0, 1), ok);
        EXPECT_EQ(client.number(), 0U);
    }
    serving.join();
}

} // namespace
} // namespace host_runner::wasm::wasi::tests

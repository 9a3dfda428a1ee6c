// SPDX-License-Identifier: Apache-2.0
#include "host_runner/qemu/qmp_client.hpp"

#include <chrono>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "fakes/temporary_directory.hpp"
#include "host_runner/base/process.hpp"

namespace host_runner::qemu {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;

constexpr auto long_enough = std::chrono::seconds(20);
const std::string greeting = "{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n";
const std::string negotiated = "{\"return\": {}, \"id\": 1}\r\n";
const std::string capabilities_command = R"({"execute":"qmp_capabilities","id":1})";

/// The listening socket and the first connection that QEMU would have.
class FakeServer {
public:
    explicit FakeServer(std::string path)
        : path_(std::move(path)), listener_(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        std::strncpy(static_cast<char*>(address.sun_path), path_.c_str(),
                     sizeof address.sun_path - 1);
        EXPECT_EQ(::bind(listener_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address),
                  0);
        EXPECT_EQ(::listen(listener_.get(), 1), 0);
    }
    void accept() {
        connection_.reset(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    }
    void send(const std::string& bytes) const {
        ASSERT_EQ(::send(connection_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL),
                  static_cast<ssize_t>(bytes.size()));
    }
    /// The next line; what the client sends is there by then or comes soon.
    std::string receive() {
        std::string line;
        char c = 0;
        while (::recv(connection_.get(), &c, 1, 0) == 1 && c != '\n')
            line += c;
        return line;
    }
    std::string receive_some() {
        std::string bytes(65536, '\0');
        const auto count = ::recv(connection_.get(), bytes.data(), bytes.size(), 0);
        bytes.resize(count > 0 ? static_cast<std::size_t>(count) : 0);
        return bytes;
    }
    void close() {
        connection_.reset();
    }
    [[nodiscard]] int listener() const {
        return listener_.get();
    }
    [[nodiscard]] const std::string& path() const {
        return path_;
    }

private:
    std::string path_;
    UniqueFd listener_;
    UniqueFd connection_;
};

class QmpClientTest : public testing::Test {
protected:
    void connect() {
        auto result = QmpClient::connect(
            *loop, server.path(),
            [this](const QmpEvent& event) {
                events.push_back(event);
                if (on_event)
                    on_event();
            },
            [this] {
                ++closed;
                if (on_closed)
                    on_closed();
            });
        ASSERT_TRUE(result) << result.error().describe();
        client = std::move(*result);
        server.accept();
    }
    void negotiate() {
        server.send(greeting);
        ASSERT_TRUE(loop->run_once(long_enough));
        ASSERT_EQ(server.receive(), capabilities_command);
        server.send(negotiated);
    }
    template <class Condition>
    void run_until(Condition condition) {
        const auto deadline = EventLoop::Clock::now() + long_enough;
        while (!condition()) {
            ASSERT_LT(EventLoop::Clock::now(), deadline) << "nothing came in time";
            ASSERT_TRUE(loop->run_once(milliseconds(100)));
        }
    }
    /// Takes replies down.
    QmpClient::Reply note() {
        return [this](Result<std::string> reply) {
            replies.push_back(std::move(reply));
        };
    }

    tests::TemporaryDirectory folder;
    std::unique_ptr<EventLoop> loop = EventLoop::create().value();
    FakeServer server{folder / "qmp.sock"};
    std::vector<QmpEvent> events;
    std::vector<Result<std::string>> replies;
    std::function<void()> on_event;
    std::function<void()> on_closed;
    int closed = 0;
    std::unique_ptr<QmpClient> client;
};

// --- connecting ---------------------------------------------------------------------------------

TEST_F(QmpClientTest, a_missing_socket_is_unavailable) {
    const auto result = QmpClient::connect(*loop, folder / "none.sock", {}, {});
    EXPECT_EQ(result.error().code, ErrorCode::unavailable);
    EXPECT_THAT(result.error().message, HasSubstr("none.sock"));
}

TEST_F(QmpClientTest, a_path_too_long_for_a_socket_is_an_error) {
    const auto result = QmpClient::connect(*loop, "/" + std::string(108, 'x'), {}, {});
    EXPECT_EQ(result.error().code, ErrorCode::invalid_argument);
}

TEST_F(QmpClientTest, sends_nothing_before_the_greeting) {
    connect();
    client->execute("query-status", "", long_enough, note());
    ASSERT_TRUE(loop->run_once(milliseconds(0)));
    server.send(greeting);
    ASSERT_TRUE(loop->run_once(long_enough));
    EXPECT_EQ(server.receive(), capabilities_command);
    EXPECT_EQ(server.receive(), R"({"execute":"query-status","id":2})");
}

TEST_F(QmpClientTest, a_refused_negotiation_fails_the_commands_and_closes) {
    connect();
    client->execute("query-status", "", long_enough, note());
    server.send(greeting + R"({"id": 1, "error": {"class": "CommandNotFound", "desc": "busy"}})" +
                "\r\n");
    run_until([this] { return closed > 0; });
    ASSERT_EQ(replies.size(), 1U);
    EXPECT_THAT(replies[0].error().message, HasSubstr("busy"));
}

// --- commands -----------------------------------------------------------------------------------

TEST_F(QmpClientTest, gives_each_reply_to_its_command) {
    connect();
    negotiate();
    std::string first;
    std::string second;
    client->execute("query-status", "", long_enough, [&](auto reply) { first = *reply; });
    client->execute("query-name", "", long_enough, [&](auto reply) { second = *reply; });
    server.send("{\"return\": \"b\", \"id\": 3}\r\n{\"return\": \"a\", \"id\": 2}\r\n");
    run_until([&] { return !first.empty() && !second.empty(); });
    EXPECT_EQ(first, "\"a\"");
    EXPECT_EQ(second, "\"b\"");
}

TEST_F(QmpClientTest, passes_the_arguments_on) {
    connect();
    negotiate();
    client->execute("snapshot-delete", R"({"tag": "t", "devices": ["hd1"]})", long_enough, note());
    EXPECT_EQ(server.receive(),
              R"({"arguments":{"devices":["hd1"],"tag":"t"},"execute":"snapshot-delete","id":2})");
}

TEST_F(QmpClientTest, arguments_that_are_no_object_fail_without_being_sent) {
    connect();
    client->execute("stop", "[1]", long_enough, note());
    client->execute("stop", "{", long_enough, note());
    EXPECT_TRUE(replies.empty()) << "a callback ran inside execute()";
    run_until([this] { return replies.size() == 2; });
    EXPECT_EQ(replies[0].error().code, ErrorCode::invalid_argument);
    EXPECT_EQ(replies[1].error().code, ErrorCode::invalid_argument);
}

TEST_F(QmpClientTest, an_error_has_qemus_own_words) {
    connect();
    negotiate();
    client->execute("cont", "", long_enough, note());
    server.send(
        "{\"error\": {\"class\": \"GenericError\", \"desc\": \"VM is gone\"}, \"id\": 2}\n");
    run_until([this] { return !replies.empty(); });
    EXPECT_EQ(replies[0].error().code, ErrorCode::internal);
    EXPECT_THAT(replies[0].error().message, HasSubstr("cont: VM is gone"));
}

TEST_F(QmpClientTest, a_reply_of_several_mebibytes_arrives_whole) {
    connect();
    negotiate();
    client->execute("query-qmp-schema", "", long_enough, note());
    const std::string large(4 << 20, 'x');
    const std::string bytes = "{\"return\": \"" + large + "\", \"id\": 2}\r\n";
    // The socket takes it in parts only, so both sides take turns.
    ASSERT_TRUE(loop->run_once(milliseconds(0)));
    std::size_t sent = 0;
    for (; sent < bytes.size(); sent += 65536) {
        server.send(bytes.substr(sent, 65536));
        ASSERT_TRUE(loop->run_once(milliseconds(0)));
    }
    run_until([this] { return !replies.empty(); });
    EXPECT_EQ(replies[0].value().size(), large.size() + 2);
}

TEST_F(QmpClientTest, a_command_longer_than_the_sockets_buffer_is_sent_whole) {
    connect();
    negotiate();
    const std::string tag(4 << 20, 't');
    client->execute("snapshot-delete", "{\"tag\": \"" + tag + "\"}", long_enough, note());
    std::string received;
    while (received.find('\n') == std::string::npos) {
        ASSERT_TRUE(loop->run_once(milliseconds(0)));
        received += server.receive_some();
    }
    EXPECT_GT(received.size(), tag.size());
}

// --- time ---------------------------------------------------------------------------------------

TEST_F(QmpClientTest, a_command_without_an_answer_times_out) {
    connect();
    negotiate();
    client->execute("query-status", "", milliseconds(1), note());
    run_until([this] { return !replies.empty(); });
    EXPECT_EQ(replies[0].error().code, ErrorCode::timeout);
    EXPECT_THAT(replies[0].error().message, HasSubstr("query-status"));
    EXPECT_EQ(closed, 0);
}

TEST_F(QmpClientTest, an_answer_after_the_timeout_is_dropped) {
    connect();
    negotiate();
    client->execute("query-status", "", milliseconds(1), note());
    run_until([this] { return !replies.empty(); });
    server.send("{\"return\": {}, \"id\": 2}\r\n{\"event\": \"STOP\"}\r\n");
    run_until([this] { return !events.empty(); });
    EXPECT_EQ(replies.size(), 1U);
}

TEST_F(QmpClientTest, a_qemu_that_never_greets_times_the_command_out) {
    connect();
    client->execute("query-status", "", milliseconds(1), note());
    run_until([this] { return !replies.empty(); });
    EXPECT_EQ(replies[0].error().code, ErrorCode::timeout);
}

// --- events -------------------------------------------------------------------------------------

TEST_F(QmpClientTest, events_before_the_negotiations_answer_are_delivered) {
    connect();
    server.send(greeting + "{\"event\": \"RESUME\", \"timestamp\": {}}\r\n" + negotiated);
    run_until([this] { return !events.empty(); });
    EXPECT_EQ(events[0].name, "RESUME");
}

TEST_F(QmpClientTest, events_that_come_in_one_read_keep_their_order) {
    connect();
    server.send(greeting + negotiated +
                "{\"event\":\"A\"}\n{\"event\":\"B\",\"data\":{\"x\":1}}\n{\"event\":\"C\"}\n");
    run_until([this] { return events.size() == 3; });
    EXPECT_EQ(events[0].name, "A");
    EXPECT_EQ(events[1].data_json, R"({"x":1})");
    EXPECT_EQ(events[2].name, "C");
}

TEST_F(QmpClientTest, events_right_before_the_end_are_delivered_before_it) {
    connect();
    server.send(greeting + negotiated + "{\"event\":\"SHUTDOWN\"}\n");
    server.close();
    run_until([this] { return closed > 0; });
    EXPECT_EQ(events.size(), 1U);
}

// --- the end ------------------------------------------------------------------------------------

TEST_F(QmpClientTest, closing_answers_what_is_pending_and_tells_once) {
    connect();
    negotiate();
    client->execute("query-status", "", long_enough, note());
    client->execute("quit", "", long_enough, note());
    server.close();
    on_closed = [this] {
        EXPECT_EQ(replies.size(), 2U) << "the end came before the replies";
    };
    run_until([this] { return closed > 0; });
    EXPECT_EQ(replies[0].error().code, ErrorCode::unavailable);
    EXPECT_EQ(replies[1].error().code, ErrorCode::unavailable);
    EXPECT_EQ(closed, 1);
}

TEST_F(QmpClientTest, a_command_after_the_end_is_answered_too) {
    connect();
    server.close();
    run_until([this] { return closed > 0; });
    client->execute("quit", "", long_enough, note());
    EXPECT_TRUE(replies.empty()) << "a callback ran inside execute()";
    run_until([this] { return !replies.empty(); });
    EXPECT_EQ(replies[0].error().code, ErrorCode::unavailable);
}

TEST_F(QmpClientTest, garbage_fails_what_is_pending_and_closes) {
    connect();
    client->execute("query-status", "", long_enough, note());
    server.send("220 mail.example ESMTP\r\n");
    run_until([this] { return closed > 0; });
    ASSERT_EQ(replies.size(), 1U);
    EXPECT_EQ(replies[0].error().code, ErrorCode::corrupt_data);
}

TEST_F(QmpClientTest, destroying_it_drops_the_replies) {
    connect();
    negotiate();
    client->execute("query-status", "", milliseconds(1), note());
    client.reset();
    bool later = false;
    loop->call_after(milliseconds(2), [&] { later = true; });
    run_until([&] { return later; });
    EXPECT_TRUE(replies.empty());
    EXPECT_EQ(closed, 0);
}

TEST_F(QmpClientTest, may_be_destroyed_in_an_event) {
    connect();
    on_event = [this] {
        client.reset();
    };
    server.send(greeting + "{\"event\":\"A\"}\n{\"event\":\"B\"}\n");
    run_until([this] { return !events.empty(); });
    EXPECT_EQ(events.size(), 1U);
    EXPECT_EQ(server.receive(), capabilities_command);
    EXPECT_EQ(server.receive(), "") << "the connection is still open";
}

TEST_F(QmpClientTest, may_be_destroyed_in_a_reply_of_the_end) {
    connect();
    negotiate();
    for (int i = 0; i < 2; ++i)
        client->execute("query-status", "", long_enough, [this](auto reply) {
            replies.push_back(reply);
            client.reset();
        });
    server.close();
    run_until([this] { return !replies.empty(); });
    EXPECT_EQ(replies.size(), 1U);
    EXPECT_EQ(closed, 0);
}

TEST_F(QmpClientTest, may_be_destroyed_when_told_of_the_end) {
    connect();
    on_closed = [this] {
        client.reset();
    };
    server.close();
    run_until([this] { return closed > 0; });
    EXPECT_EQ(client, nullptr);
}

// --- what events say ----------------------------------------------------------------------------

TEST(ShutdownReason, is_told_apart) {
    const auto reason = [](const std::string& name) {
        return shutdown_reason(R"({"guest": false, "reason": ")" + name + "\"}");
    };
    EXPECT_EQ(reason("guest-shutdown"), ShutdownReason::guest_shutdown);
    EXPECT_EQ(reason("guest-reset"), ShutdownReason::guest_reset);
    EXPECT_EQ(reason("guest-panic"), ShutdownReason::guest_panic);
    EXPECT_EQ(reason("host-qmp-quit"), ShutdownReason::host_quit);
    EXPECT_EQ(reason("host-signal"), ShutdownReason::host_signal);
    EXPECT_EQ(reason("host-error"), ShutdownReason::host_error);
    EXPECT_EQ(reason("snapshot-load"), ShutdownReason::other);
}

TEST(ShutdownReason, nonsense_is_other) {
    for (const auto* text : {"", "{", "[]", "{}", R"({"reason": 3})"})
        EXPECT_EQ(shutdown_reason(text), ShutdownReason::other) << text;
}

TEST(ShutdownReason, has_qemus_name) {
    EXPECT_EQ(to_string(ShutdownReason::host_quit), "host-qmp-quit");
    EXPECT_EQ(to_string(ShutdownReason::other), "other");
}

TEST(PanicMessage, is_the_guests_text_without_control_characters) {
    EXPECT_EQ(panic_message(R"({"action": "shutdown", "info": {"type": "tdx", "error-code": 3,
                                "message": "no\u001b[31m \u0000memory\n"}})"),
              "no[31m memory");
}

TEST(PanicMessage, is_cut_at_256_characters) {
    EXPECT_EQ(panic_message(R"({"info": {"message": ")" + std::string(1000, 'x') + "\"}}").size(),
              256U);
}

TEST(PanicMessage, is_empty_when_there_is_none) {
    for (const auto* text : {"", "[]", "{}", R"({"info": 1})", R"({"info": {"message": 1}})"})
        EXPECT_EQ(panic_message(text), "") << text;
}

// --- a real QEMU --------------------------------------------------------------------------------

TEST_F(QmpClientTest, talks_to_a_real_qemu) {
    // QEMU inherits the socket, already listening: nobody has to wait until it is there.
    ProcessSpec spec;
    spec.argv = {"qemu-system-x86_64",
                 "-M",
                 "none",
                 "-S",
                 "-nodefaults",
                 "-display",
                 "none",
                 "-chardev",
                 "socket,id=qmp,fd=3,server=on,wait=off",
                 "-mon",
                 "chardev=qmp,mode=control"};
    spec.pass_fds = {{3, server.listener()}};
    ForkExecLauncher launcher;
    const auto qemu = launcher.launch(spec);
    if (!qemu && qemu.error().code == ErrorCode::not_found)
        GTEST_SKIP() << "no qemu-system-x86_64 in PATH";
    ASSERT_TRUE(qemu) << qemu.error().describe();
    auto result = QmpClient::connect(
        *loop, server.path(), [this](const QmpEvent& event) { events.push_back(event); },
        [this] { ++closed; });
    ASSERT_TRUE(result) << result.error().describe();
    client = std::move(*result);
    client->execute("query-status", "", long_enough, note());
    client->execute("query-qmp-schema", "", long_enough, note());
    client->execute("no-such-command", "", long_enough, note());
    client->execute("quit", "", long_enough, note());
    run_until([this] { return closed > 0; });
    ASSERT_EQ(replies.size(), 4U);
    EXPECT_THAT(replies[0].value(), HasSubstr("prelaunch"));
    EXPECT_GT(replies[1].value().size(), 100'000U);
    EXPECT_THAT(replies[2].error().message, HasSubstr("no-such-command has not been found"));
    EXPECT_EQ(replies[3].value(), "{}");
    ASSERT_EQ(events.size(), 1U);
    EXPECT_EQ(shutdown_reason(events[0].data_json), ShutdownReason::host_quit);
    EXPECT_EQ(wait_for_exit(*qemu, long_enough)->code, 0);
}

TEST(VcpuThreads, are_those_that_qemu_names) {
    const auto threads = vcpu_threads(
        R"([{"cpu-index":1,"thread-id":12,"target":"x86_64"},{"cpu-index":0,"thread-id":11}])");
    ASSERT_TRUE(threads) << threads.error().describe();
    EXPECT_THAT(*threads, testing::ElementsAre(testing::Pair(0, 11), testing::Pair(1, 12)));
    EXPECT_TRUE(vcpu_threads("[]")->empty());
}

TEST(VcpuThreads, refuse_what_is_no_account_of_them) {
    for (const auto* json :
         {"", "{}", "[1]", "[{}]", R"([{"cpu-index":0}])", R"([{"cpu-index":-1,"thread-id":1}])",
          R"([{"cpu-index":0,"thread-id":0}])", R"([{"cpu-index":0,"thread-id":"1"}])",
          R"([{"cpu-index":4096,"thread-id":1}])", R"([{"cpu-index":0,"thread-id":2147483648}])"})
        EXPECT_EQ(vcpu_threads(json).error().code, ErrorCode::corrupt_data) << json;
}

} // namespace
} // namespace host_runner::qemu

// SPDX-License-Identifier: Apache-2.0
#include "host_runner/usernet/network_process.hpp"

#include <csignal>

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <sys/socket.h>
#include <unistd.h>

#include "host_runner/base/files.hpp"

namespace host_runner::usernet {
namespace {

using testing::HasSubstr;
using namespace std::chrono_literals;

NetworkCommand shell(const std::string& script) {
    return {{"/bin/sh", "-c", script},
            [](std::string_view text, bool ended) -> std::optional<Status> {
                if (!ended && text.find('\n') == std::string_view::npos)
                    return std::nullopt;
                return parse_status(text);
            }};
}

class NetworkProcessTest : public testing::Test {
public:
    NetworkProcess start(const NetworkCommand& command) {
        auto process = NetworkProcess::start(launcher, command);
        EXPECT_TRUE(process) << process.error().describe();
        return std::move(process).value();
    }
    ForkExecLauncher launcher;
};

TEST_F(NetworkProcessTest, gives_qemus_end_once_the_program_is_ready) {
    auto process = start(shell("echo ready; cat <&3 >&3"));
    const auto socket = process.wait_ready(10s);
    ASSERT_TRUE(socket) << socket.error().describe();
    ASSERT_TRUE(write_all(socket->get(), "frame"));
    std::string echo(5, ' ');
    EXPECT_EQ(::recv(socket->get(), echo.data(), echo.size(), MSG_WAITALL), 5);
    EXPECT_EQ(echo, "frame");
}

TEST_F(NetworkProcessTest, ends_with_its_owner) {
    pid_t pid = 0;
    {
        auto process = start(shell("echo ready; sleep 1000"));
        ASSERT_TRUE(process.wait_ready(10s));
        pid = process.pid();
    }
    EXPECT_NE(::kill(pid, 0), 0);
}

TEST_F(NetworkProcessTest, names_the_port_that_somebody_took) {
    auto process = start(shell("echo port tcp:127.0.0.1:80:80; exit 1"));
    const auto socket = process.wait_ready(10s);
    ASSERT_FALSE(socket);
    EXPECT_EQ(socket.error().code, ErrorCode::already_exists);
    EXPECT_THAT(socket.error().message, HasSubstr("tcp:127.0.0.1:80:80"));
}

TEST_F(NetworkProcessTest, gives_the_words_of_one_that_cannot_start) {
    auto process = start(shell("echo libslirp.so.0: cannot open >&2; exit 127"));
    const auto socket = process.wait_ready(10s);
    ASSERT_FALSE(socket);
    EXPECT_EQ(socket.error().code, ErrorCode::unsupported);
    EXPECT_THAT(socket.error().message, HasSubstr("libslirp.so.0: cannot open"));
}

TEST_F(NetworkProcessTest, does_not_wait_for_ever) {
    auto process = start(shell("sleep 1000"));
    const auto socket = process.wait_ready(50ms);
    ASSERT_FALSE(socket);
    EXPECT_EQ(socket.error().code, ErrorCode::timeout);
}

TEST_F(NetworkProcessTest, user_network_is_ready_and_ends_with_qemu) {
    auto process = start(user_network_command(USER_NETWORK, {}));
    {
        const auto socket = process.wait_ready(10s);
        ASSERT_TRUE(socket) << socket.error().describe();
    } // closed, as by QEMU's end
    const auto status = process.reap();
    ASSERT_TRUE(status);
    EXPECT_EQ(status->describe(), "exit code 0");
}

TEST_F(NetworkProcessTest, user_network_ends_at_a_stream_that_is_none) {
    auto process = start(user_network_command(USER_NETWORK, {}));
    const auto socket = process.wait_ready(10s);
    ASSERT_TRUE(socket);
    ASSERT_TRUE(write_all(socket->get(), "\xff\xff\xff\xff"));
    EXPECT_EQ(process.reap()->describe(), "exit code 1");
}

TEST_F(NetworkProcessTest, user_network_says_which_port_is_taken) {
    const UniqueFd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in name{};
    name.sin_family = AF_INET;
    name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof name;
    ASSERT_EQ(::bind(listener.get(), reinterpret_cast<sockaddr*>(&name), sizeof name), 0);
    ASSERT_EQ(::listen(listener.get(), 1), 0);
    ASSERT_EQ(::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&name), &length), 0);
    Settings settings;
    settings.ports = {{spec::Protocol::tcp, "127.0.0.1", ntohs(name.sin_port), 80}};
    auto process = start(user_network_command(USER_NETWORK, settings));
    const auto socket = process.wait_ready(10s);
    ASSERT_FALSE(socket);
    EXPECT_EQ(socket.error().code, ErrorCode::already_exists);
    EXPECT_THAT(socket.error().message,
                HasSubstr(spec::format_port_mapping(settings.ports.front())));
}

TEST_F(NetworkProcessTest, user_network_refuses_words_that_it_does_not_know) {
    auto process = start({{USER_NETWORK, "--fast"}, shell("").read_status});
    const auto socket = process.wait_ready(10s);
    ASSERT_FALSE(socket);
    EXPECT_THAT(socket.error().message, HasSubstr("--fast"));
}

} // namespace
} // namespace host_runner::usernet

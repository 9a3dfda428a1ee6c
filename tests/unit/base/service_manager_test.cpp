// SPDX-License-Identifier: Apache-2.0
#include "host_runner/base/service_manager.hpp"

#include <array>
#include <cstddef>
#include <cstdlib>
#include <cstring>

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "fakes/temporary_directory.hpp"
#include "host_runner/base/unique_fd.hpp"

namespace host_runner {
namespace {

/// The manager's end. @param name as in NOTIFY_SOCKET
UniqueFd listen_on(const std::string& name) {
    UniqueFd fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    name.copy(address.sun_path, sizeof address.sun_path - 1);
    if (name.front() == '@')
        address.sun_path[0] = '\0';
    const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size());
    EXPECT_EQ(::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), size), 0);
    return fd;
}

std::string received(const UniqueFd& fd) {
    std::array<char, 256> buffer{};
    const auto count = ::recv(fd.get(), buffer.data(), buffer.size(), 0);
    return {buffer.data(), count < 0 ? 0 : static_cast<std::size_t>(count)};
}

TEST(ServiceManager, is_told_on_a_path_and_on_an_abstract_name) {
    const tests::TemporaryDirectory folder;
    for (const auto& name : {folder / "notify", "@" + (folder / "notify")}) {
        const auto manager = listen_on(name);
        const ServiceManager ours(name);
        EXPECT_TRUE(ours.is_there());
        ours.tell("READY=1\nSTATUS=ready");
        EXPECT_EQ(received(manager), "READY=1\nSTATUS=ready");
    }
}

TEST(ServiceManager, is_taken_out_of_the_environment) {
    ASSERT_EQ(::setenv("NOTIFY_SOCKET", "/run/notify", 1), 0);
    EXPECT_TRUE(ServiceManager::from_environment().is_there());
    EXPECT_EQ(std::getenv("NOTIFY_SOCKET"), nullptr);
    EXPECT_FALSE(ServiceManager::from_environment().is_there());
}

TEST(ServiceManager, that_is_not_there_is_told_nothing) {
    ServiceManager("").tell("READY=1");
    ServiceManager("/no/such/socket").tell("READY=1");
    ServiceManager(std::string(200, 'x')).tell("READY=1");
}

} // namespace
} // namespace host_runner

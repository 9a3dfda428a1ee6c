// SPDX-License-Identifier: Apache-2.0
#include "host_runner/base/unix_socket.hpp"

#include <sys/socket.h>
#include <sys/stat.h>

#include <gmock/gmock.h>

#include "fakes/temporary_directory.hpp"
#include "host_runner/base/files.hpp"

namespace host_runner {
namespace {

bool connects(const std::string& path) {
    const auto address = unix_address(path);
    const UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    return address &&
           ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof *address) == 0;
}

TEST(ListenUnix, takes_the_place_of_what_was_left) {
    const tests::TemporaryDirectory folder;
    const auto path = folder / "a.sock";
    ASSERT_TRUE(write_file_atomic(path, "left by somebody"));
    const auto listener = listen_unix(path);
    ASSERT_TRUE(listener) << listener.error().describe();
    EXPECT_TRUE(connects(path));
}

TEST(ListenUnix, lets_nobody_else_in_whatever_the_umask) {
    const tests::TemporaryDirectory folder;
    const auto path = folder / "a.sock";
    const auto before = ::umask(0);
    const auto listener = listen_unix(path);
    ::umask(before);
    ASSERT_TRUE(listener) << listener.error().describe();
    struct stat status {};
    ASSERT_EQ(::stat(path.c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 07777U, 0600U);
}

TEST(UnixAddress, ends_at_the_kernel_s_limit) {
    EXPECT_TRUE(unix_address(std::string(max_socket_path, 'a')));
    const auto longer = unix_address(std::string(max_socket_path + 1, 'a'));
    ASSERT_FALSE(longer);
    EXPECT_EQ(longer.error().code, ErrorCode::invalid_argument);
    EXPECT_THAT(longer.error().message, testing::HasSubstr("takes at most 107"));
}

} // namespace
} // namespace host_runner

// SPDX-License-Identifier: Apache-2.0
#include "host_runner/agent/console.hpp"

#include <array>
#include <csignal>

#include <fcntl.h>
#include <unistd.h>

#include <gmock/gmock.h>

#include "host_runner/base/files.hpp"
#include "host_runner/base/unique_fd.hpp"

namespace host_runner::agent {
namespace {

using namespace std::chrono_literals;

class ConsoleTest : public testing::Test {
protected:
    void SetUp() override {
        std::array<int, 2> fds{};
        ASSERT_EQ(::pipe2(fds.data(), O_CLOEXEC), 0);
        reader.reset(fds[0]);
        writer.reset(fds[1]);
    }
    UniqueFd reader, writer;
};

TEST_F(ConsoleTest, writes_lines_with_their_prefix_in_order) {
    {
        Console console(writer.get());
        console.line("guest_agent: ", "one");
        console.line("web | ", "two");
        EXPECT_TRUE(console.flush(10s));
    }
    writer.reset();
    EXPECT_EQ(*read_all(reader.get(), 1000), "guest_agent: one\nweb | two\n");
}

TEST_F(ConsoleTest, waits_for_nobody_and_tells_how_much_it_dropped) {
    Console console(writer.get()); // nobody reads: the pipe takes 64 KiB, the queue 256
    const std::string text(8UL * 1024, 'x');
    for (int i = 0; i < 100; ++i)
        console.line("", text);
    EXPECT_FALSE(console.flush(1ms));
    // Now somebody reads: all that fitted, then the count with the next line.
    std::string seen;
    while (seen.find("last") == std::string::npos) {
        std::array<char, 65536> buffer{};
        const ssize_t count = ::read(reader.get(), buffer.data(), buffer.size());
        ASSERT_GT(count, 0);
        seen.append(buffer.data(), static_cast<std::size_t>(count));
        if (seen.size() > Console::max_queue_bytes / 2 && seen.find("last") == std::string::npos)
            console.line("", "last");
    }
    EXPECT_THAT(seen, testing::HasSubstr("lines are not shown here"));
}

TEST(ConsoleWithoutReader, gives_up_when_the_line_is_broken) {
    std::array<int, 2> fds{};
    ASSERT_EQ(::pipe2(fds.data(), O_CLOEXEC), 0);
    UniqueFd writer(fds[1]);
    ::close(fds[0]);
    ::signal(SIGPIPE, SIG_IGN);
    Console console(writer.get());
    console.line("", "lost");
    EXPECT_TRUE(console.flush(10s));
}

} // namespace
} // namespace host_runner::agent

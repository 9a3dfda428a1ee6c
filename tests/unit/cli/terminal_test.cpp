// SPDX-License-Identifier: Apache-2.0
#include "terminal.hpp"

#include <pty.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "host_runner/base/unique_fd.hpp"

namespace host_runner::cli {
namespace {

TEST(TerminalFilter, lets_text_line_ends_tabs_and_utf8_through) {
    EXPECT_EQ(TerminalFilter().pass("a\tb\n\xc3\xa4\xc2\xb5"), "a\tb\n\xc3\xa4\xc2\xb5");
}

TEST(TerminalFilter, leaves_out_what_a_terminal_obeys) {
    EXPECT_EQ(TerminalFilter().pass("a\x1b]0;title\x07\r\x7f\x08z"), "a]0;titlez");
    EXPECT_EQ(TerminalFilter().pass("a\xc2\x9bz"), "az");
}

TEST(TerminalFilter, sees_a_control_character_that_is_cut_in_two) {
    TerminalFilter filter;
    EXPECT_EQ(filter.pass("a\xc2"), "a");
    EXPECT_EQ(filter.pass("\x9bz"), "z");
    EXPECT_EQ(filter.pass("\xc2"), "");
    EXPECT_EQ(filter.pass("\xb5"), "\xc2\xb5");
}

struct Pty {
    UniqueFd host;
    UniqueFd terminal;
    Pty() {
        int host_fd = -1;
        int terminal_fd = -1;
        EXPECT_EQ(::openpty(&host_fd, &terminal_fd, nullptr, nullptr, nullptr), 0);
        host.reset(host_fd);
        terminal.reset(terminal_fd);
    }
    [[nodiscard]] bool is_raw() const {
        termios modes{};
        EXPECT_EQ(::tcgetattr(terminal.get(), &modes), 0);
        return (modes.c_lflag & ICANON) == 0;
    }
};

TEST(RawTerminal, gives_the_modes_back) {
    const Pty pty;
    EXPECT_FALSE(pty.is_raw());
    {
        const auto raw = RawTerminal::enter(pty.terminal.get()).value();
        EXPECT_TRUE(pty.is_raw());
    }
    EXPECT_FALSE(pty.is_raw());
}

TEST(RawTerminal, refuses_what_is_no_terminal) {
    int ends[2];
    ASSERT_EQ(::pipe(ends), 0);
    const UniqueFd read_end(ends[0]);
    const UniqueFd write_end(ends[1]);
    EXPECT_FALSE(RawTerminal::enter(read_end.get()));
}

} // namespace
} // namespace host_runner::cli

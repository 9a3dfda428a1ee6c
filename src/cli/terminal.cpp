// SPDX-License-Identifier: Apache-2.0
#include "terminal.hpp"

#include <cerrno>
#include <utility>

#include <sys/ioctl.h>

namespace host_runner::cli {

std::size_t terminal_columns(int fd) noexcept {
    winsize size{};
    return ::ioctl(fd, TIOCGWINSZ, &size) == 0 ? size.ws_col : 0;
}

std::string TerminalFilter::pass(std::string_view bytes) {
    constexpr unsigned char lead_of_c1 = 0xc2;
    constexpr unsigned char end_of_c1 = 0xa0;
    std::string result;
    for (const char c : bytes) {
        const auto byte = static_cast<unsigned char>(c);
        if (std::exchange(after_c2_, false)) {
            if (byte >= 0x80 && byte < end_of_c1)
                continue; // U+0080 to U+009F: terminals obey them too
            result += static_cast<char>(lead_of_c1);
        }
        if (byte == lead_of_c1)
            after_c2_ = true;
        else if (byte == '\n' || byte == '\t' || (byte >= 0x20 && byte != 0x7f))
            result += c;
    }
    return result;
}

Result<RawTerminal> RawTerminal::enter(int fd) {
    termios before{};
    if (::tcgetattr(fd, &before) != 0)
        return fail_errno("Cannot read the terminal's modes", errno);
    termios raw = before;
    ::cfmakeraw(&raw);
    if (::tcsetattr(fd, TCSADRAIN, &raw) != 0)
        return fail_errno("Cannot set the terminal's modes", errno);
    return RawTerminal(fd, before);
}

RawTerminal::RawTerminal(RawTerminal&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)), before_(other.before_) {}

RawTerminal::~RawTerminal() {
    if (fd_ >= 0)
        ::tcsetattr(fd_, TCSADRAIN, &before_);
}

} // namespace host_runner::cli

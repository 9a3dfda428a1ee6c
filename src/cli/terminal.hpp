// SPDX-License-Identifier: Apache-2.0
#pragma once

/// What the standard descriptors are connected to, and the terminal's modes.

#include <cstddef>
#include <string>
#include <string_view>

#include <termios.h>

#include "host_runner/base/error.hpp"

namespace host_runner::cli {

/// Columns of the terminal at `fd`; 0 when unknown.
[[nodiscard]] std::size_t terminal_columns(int fd) noexcept;

/// What a guest printed, for a terminal: its control characters, which could change the terminal's
/// state or title, are left out, except line ends and tabs. Keeps what a chunk ends with in the
/// middle of a UTF-8 sequence for the next one.
class TerminalFilter {
public:
    [[nodiscard]] std::string pass(std::string_view bytes);

private:
    bool after_c2_ = false; ///< The last byte was 0xc2, which begins U+0080 to U+00BF.
};

/// Raw mode for as long as it lives.
class RawTerminal {
public:
    /// @errors io_error: `fd` is no terminal
    [[nodiscard]] static Result<RawTerminal> enter(int fd);
    RawTerminal(RawTerminal&& other) noexcept;
    RawTerminal& operator=(RawTerminal&&) = delete;
    RawTerminal(const RawTerminal&) = delete;
    RawTerminal& operator=(const RawTerminal&) = delete;
    ~RawTerminal();

private:
    RawTerminal(int fd, const termios& before) : fd_(fd), before_(before) {}
    int fd_;
    termios before_;
};

} // namespace host_runner::cli

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Texts made from the option table: --help, the man page, completions. Pure.

#include <string>
#include <string_view>

#include "host_runner/base/error.hpp"
#include "host_runner/config/option_table.hpp"

namespace host_runner::config {

/// `host_runner --help`.
[[nodiscard]] std::string format_help();
/// `host_runner VERB --help`.
[[nodiscard]] std::string format_help(const Verb& verb);

/// host_runner.1, in the man(7) macros. docs/man/host_runner.1 is this text (a test compares).
[[nodiscard]] std::string format_man_page();

/// A completion script. @errors invalid_argument: not bash, zsh or fish
[[nodiscard]] Result<std::string> format_completion(std::string_view shell);

} // namespace host_runner::config

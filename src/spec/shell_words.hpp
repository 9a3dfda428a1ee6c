// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "host_runner/base/error.hpp"

namespace host_runner::spec {

/// Splits a command as a POSIX shell would, without expanding anything: blanks separate words;
/// '...' keeps all; "..." keeps all but \" \\ \$ \` and \newline; a backslash elsewhere keeps the
/// next character. Operators such as | and > have no meaning: they are characters like others.
/// Source: POSIX.1-2017, Shell Command Language, section 2.2 (quoting).
///
///     split_words("sh -c 'echo hello'")   // {"sh", "-c", "echo hello"}
///
/// @errors invalid_argument: a quote that does not end, a backslash at the end
[[nodiscard]] Result<std::vector<std::string>> split_words(std::string_view text);

} // namespace host_runner::spec

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The command line taken apart by CLI11, with the parser made from the option table.

#include <string>
#include <vector>

#include "host_runner/base/error.hpp"
#include "host_runner/config/option_table.hpp"
#include "host_runner/config/settings.hpp"

namespace host_runner::cli {

struct Invocation {
    const config::Verb* verb = nullptr; ///< nullptr: only with help or version.
    config::Settings::CommandLine options;
    std::vector<std::vector<std::string>> arguments; ///< One entry per positional of the verb.
    bool help = false;
    bool version = false;
};

/// @param arguments without the program's name
/// @errors invalid_argument: an unknown verb or option, a missing value or argument, one too many
[[nodiscard]] Result<Invocation> parse_command_line(const std::vector<std::string>& arguments);

} // namespace host_runner::cli

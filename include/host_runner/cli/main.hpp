// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace host_runner::cli {

/// The whole program: reads the command line, runs its verb, prints a failure as one line on
/// stderr. Call it first in main(), before any other thread exists.
/// @return the exit code (base/exit_code.hpp; for `exec` and `wait` also that of the guest)
[[nodiscard]] int run_command_line(int argc, const char* const* argv) noexcept;

} // namespace host_runner::cli

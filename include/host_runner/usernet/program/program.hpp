// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The program `user_network`: a user network for one VM, in a process of its own that has nothing
/// but sockets.
///
///     int main(int argc, char** argv) { return run_program({argv + 1, argv + argc}); }

#include <string>
#include <vector>

namespace host_runner::usernet::program {

/// Sets up, confines itself, says so on descriptor 1, and carries frames on descriptor `frames_fd`
/// until QEMU closes its end.
/// @param words of the command line, after the program's name
/// @return the exit code: 0 when QEMU has gone
[[nodiscard]] int run_program(const std::vector<std::string>& words);

} // namespace host_runner::usernet::program

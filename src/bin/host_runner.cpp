// SPDX-License-Identifier: Apache-2.0
#include "host_runner/cli/main.hpp"

int main(int argc, char** argv) {
    return host_runner::cli::run_command_line(argc, argv);
}

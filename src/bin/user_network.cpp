// SPDX-License-Identifier: Apache-2.0
#include "host_runner/usernet/program/program.hpp"

int main(int argc, char** argv) {
    return host_runner::usernet::program::run_program({argv + 1, argv + argc});
}

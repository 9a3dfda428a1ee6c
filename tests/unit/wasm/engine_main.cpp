// SPDX-License-Identifier: Apache-2.0
#include <string>
#include <string_view>
#include <vector>

#include <gmock/gmock.h>

#include "host_runner/wasm/compile.hpp"

int main(int argc, char** argv) {
    if (argc > 1 && std::string_view(argv[1]) == "compile") // NOLINT: main's array
        return host_runner::wasm::compile_main(
            std::vector<std::string>(argv + 2, argv + argc)); // NOLINT
    ::testing::InitGoogleMock(&argc, argv);
    return RUN_ALL_TESTS();
}

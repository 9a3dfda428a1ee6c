// SPDX-License-Identifier: Apache-2.0
// An --env-file of any bytes gives names that a process can have, or an error.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "host_runner/spec/compose.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const auto variables = host_runner::spec::parse_env_file(
        "values.env", {reinterpret_cast<const char*>(data), size});
    if (!variables)
        return 0;
    for (const auto& [name, value] : *variables)
        if (name.empty() || name.find('=') != std::string::npos ||
            value.find('\0') != std::string::npos)
            std::abort();
    return 0;
}

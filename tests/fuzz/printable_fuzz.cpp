// SPDX-License-Identifier: Apache-2.0
/// What a guest says goes to terminals and logs: whatever it is, printable() must leave one line
/// without control characters.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "host_runner/instance/logs.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    const auto line = host_runner::instance::printable(text, 100);
    for (const char c : line)
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f)
            std::abort();
    // Each byte that is no UTF-8 may become the three bytes of U+FFFD.
    if (line.size() > 3 * 100 + 3)
        std::abort();
    return 0;
}

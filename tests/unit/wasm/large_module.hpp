// SPDX-License-Identifier: Apache-2.0
#pragma once

/// A valid module that costs the compiler as much as one likes.

#include <cstdint>
#include <string>

namespace host_runner::wasm::tests {

inline std::string leb128(std::uint64_t value) {
    std::string bytes;
    do {
        const auto low = static_cast<unsigned char>(value & 0x7fU);
        value >>= 7U;
        bytes += static_cast<char>(value != 0 ? low | 0x80U : low);
    } while (value != 0);
    return bytes;
}

inline std::string section(char id, const std::string& content) {
    return id + leb128(content.size()) + content;
}

/// `functions` functions (i32) -> i32, each with `operations` multiplications of its local by
/// itself. Source: WebAssembly core specification 1.0, chapter 5 (binary format)
inline std::string large_module(std::size_t functions, std::size_t operations) {
    using namespace std::string_literals;
    std::string body = "\0\x20\0"s; // no locals; local.get 0
    for (std::size_t i = 0; i < operations; ++i)
        body += "\x20\0\x6c"s; // local.get 0; i32.mul
    body += '\x0b';            // end
    const auto sized = leb128(body.size()) + body;
    std::string indexes = leb128(functions);
    std::string bodies = leb128(functions);
    for (std::size_t i = 0; i < functions; ++i) {
        indexes += '\0';
        bodies += sized;
    }
    return "\0asm\1\0\0\0"s + section(1, "\1\x60\1\x7f\1\x7f"s) + section(3, indexes) +
           section(10, bodies);
}

} // namespace host_runner::wasm::tests

// SPDX-License-Identifier: Apache-2.0
#include "handles.hpp"

namespace host_runner::wasm {

std::string plain_text(std::string_view text, std::size_t max_bytes) {
    std::string plain;
    for (const char c : text) {
        if (plain.size() >= max_bytes) {
            plain += "...";
            break;
        }
        if (c == '\n' || c == ' ' || c == '\t') {
            if (!plain.empty() && plain.back() != ' ')
                plain += ' ';
        } else {
            plain += c > ' ' && c < '\x7f' ? c : '?';
        }
    }
    while (!plain.empty() && plain.back() == ' ')
        plain.pop_back();
    return plain;
}

std::string message_of(const wasmtime_error_t& error) {
    wasm_name_t message;
    wasmtime_error_message(&error, &message);
    std::string text(message.data, message.size);
    wasm_byte_vec_delete(&message);
    // "what\n\nCaused by:\n    why" or "...\n    0: why\n    1: why"
    constexpr std::string_view caused_by = "\n\nCaused by:\n";
    if (const auto at = text.find(caused_by); at != std::string::npos)
        text.replace(at, caused_by.size(), ": ");
    return plain_text(text);
}

} // namespace host_runner::wasm

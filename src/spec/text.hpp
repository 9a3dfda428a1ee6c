// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Small helpers that the option parsers of this module share.

#include <algorithm>
#include <charconv>
#include <concepts>
#include <optional>
#include <string_view>
#include <vector>

namespace host_runner::spec {

[[nodiscard]] inline std::vector<std::string_view> split(std::string_view text, char separator) {
    std::vector<std::string_view> parts;
    while (true) {
        const auto end = text.find(separator);
        parts.push_back(text.substr(0, end));
        if (end == std::string_view::npos)
            return parts;
        text.remove_prefix(end + 1);
    }
}

[[nodiscard]] inline std::string_view trim(std::string_view text) noexcept {
    const auto first = text.find_first_not_of(" \t");
    if (first == std::string_view::npos)
        return {};
    return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

/// All of `text` as a number of that base; nullopt for anything else, also what does not fit.
template <std::unsigned_integral Number>
[[nodiscard]] std::optional<Number> parse_number(std::string_view text, int base = 10) noexcept {
    Number number{};
    const auto* end = text.data() + text.size();
    const auto [stop, problem] = std::from_chars(text.data(), end, number, base);
    if (problem != std::errc{} || stop != end)
        return std::nullopt;
    return number;
}

/// ASCII only: what the user's locale calls a letter does not matter.
[[nodiscard]] inline bool is_alphanumeric(char c) noexcept {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/// True when every byte can stand in a message, a URL or an argument: no blanks, no control bytes.
[[nodiscard]] inline bool is_graphic(std::string_view text) noexcept {
    return std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c != 0x7f; });
}

} // namespace host_runner::spec

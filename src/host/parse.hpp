// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Small helpers that the readers of /proc and /sys share.

#include <algorithm>
#include <charconv>
#include <concepts>
#include <optional>
#include <string_view>

namespace host_runner::host {

/// All of `text` as a number of that base, without a prefix like 0x; nullopt for anything else.
template <std::integral Number>
[[nodiscard]] std::optional<Number> parse_number(std::string_view text, int base) noexcept {
    Number number{};
    const auto* end = text.data() + text.size();
    const auto [stop, problem] = std::from_chars(text.data(), end, number, base);
    if (problem != std::errc{} || stop != end)
        return std::nullopt;
    return number;
}

/// "0x10de" -> 0x10de, as the kernel writes it.
template <std::integral Number>
[[nodiscard]] std::optional<Number> parse_hex(std::string_view text) noexcept {
    if (text.starts_with("0x"))
        text.remove_prefix(2);
    return parse_number<Number>(text, 16);
}

/// Cuts the first line off `text` and gives it, without its newline.
[[nodiscard]] inline std::string_view next_line(std::string_view& text) noexcept {
    const auto end = std::min(text.find('\n'), text.size());
    const auto line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    return line;
}

/// Cuts the first word off `text` and gives it; blanks and tabs part words.
[[nodiscard]] inline std::string_view next_word(std::string_view& text) noexcept {
    text.remove_prefix(std::min(text.find_first_not_of(" \t"), text.size()));
    const auto end = std::min(text.find_first_of(" \t"), text.size());
    const auto word = text.substr(0, end);
    text.remove_prefix(end);
    return word;
}

} // namespace host_runner::host

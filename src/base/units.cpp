// SPDX-License-Identifier: Apache-2.0
#include "host_runner/base/units.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>
#include <optional>
#include <utility>

#include <fmt/format.h>

namespace host_runner {

namespace {

constexpr std::uint64_t max_size =
    static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());

std::string_view trim(std::string_view text) noexcept {
    const auto first = text.find_first_not_of(" \t");
    if (first == std::string_view::npos)
        return {};
    return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

/// The multiplier of a unit such as "", "k", "MiB", "TB"; nullopt when there is no such unit.
std::optional<std::uint64_t> size_unit(std::string_view unit) noexcept {
    if (unit.empty())
        return mib;
    const auto lower = [](char c) {
        return static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
    };
    const char letter = lower(unit.front());
    const std::string_view rest = unit.substr(1);
    if (letter == 'b')
        return rest.empty() ? std::optional<std::uint64_t>(1) : std::nullopt;
    const bool rest_is_known =
        rest.empty() || (rest.size() == 1 && (lower(rest[0]) == 'b' || lower(rest[0]) == 'i')) ||
        (rest.size() == 2 && lower(rest[0]) == 'i' && lower(rest[1]) == 'b');
    if (!rest_is_known)
        return std::nullopt;
    switch (letter) {
    case 'k':
        return kib;
    case 'm':
        return mib;
    case 'g':
        return gib;
    case 't':
        return tib;
    default:
        return std::nullopt;
    }
}

tl::unexpected<Error> bad_size(std::string_view text, std::string_view rule) {
    return fail(ErrorCode::invalid_argument, fmt::format("'{}' is not a size: {}", text, rule),
                "write a number with K, M, G or T, e.g. 32G or 512MiB; a bare number is MiB");
}

} // namespace

Result<std::uint64_t> parse_size(std::string_view text) {
    const std::string_view body = trim(text);
    const auto digits_end = std::min(body.find_first_not_of("0123456789."), body.size());
    const std::string_view number = body.substr(0, digits_end);
    const std::string_view unit_text = trim(body.substr(digits_end));
    const auto unit = size_unit(unit_text);
    if (number.empty())
        return bad_size(text, "it must start with a digit");
    if (!unit)
        return bad_size(text, fmt::format("'{}' is not a unit", unit_text));

    const auto dot = number.find('.');
    const std::string_view whole_text = number.substr(0, dot);
    std::uint64_t whole = 0;
    const auto [end, problem] =
        std::from_chars(whole_text.data(), whole_text.data() + whole_text.size(), whole);
    if (problem == std::errc::result_out_of_range || whole > max_size / *unit)
        return bad_size(text, "it is above 8 EiB");
    if (problem != std::errc{} || end != whole_text.data() + whole_text.size())
        return bad_size(text, "it is not a number");
    std::uint64_t bytes = whole * *unit;

    if (dot != std::string_view::npos) {
        const std::string_view fraction_text = number.substr(dot + 1);
        if (fraction_text.empty() || fraction_text.size() > 9 ||
            fraction_text.find('.') != std::string_view::npos)
            return bad_size(text, "its fraction is not 1 to 9 digits");
        std::uint64_t fraction = 0;
        std::uint64_t scale = 1;
        for (const char c : fraction_text) {
            fraction = fraction * 10 + static_cast<std::uint64_t>(c - '0');
            scale *= 10;
        }
        // 128 bits: fraction < 10^9 and the unit is at most 2^40.
        __extension__ using Wide = unsigned __int128;
        const Wide product = static_cast<Wide>(fraction) * *unit;
        if (product % scale != 0)
            return bad_size(text, "its fraction does not give whole bytes");
        bytes += static_cast<std::uint64_t>(product / scale);
    }
    if (bytes == 0)
        return bad_size(text, "it must be above zero");
    if (bytes > max_size)
        return bad_size(text, "it is above 8 EiB");
    return bytes;
}

std::string format_size(std::uint64_t bytes) {
    constexpr std::array<std::pair<std::uint64_t, char>, 4> units{
        {{tib, 'T'}, {gib, 'G'}, {mib, 'M'}, {kib, 'K'}}};
    for (const auto& [unit, letter] : units)
        if (bytes >= unit && bytes % unit == 0)
            return fmt::format("{}{}", bytes / unit, letter);
    return fmt::format("{}B", bytes);
}

std::string format_size_rounded(std::uint64_t bytes) {
    constexpr std::array<std::pair<std::uint64_t, const char*>, 4> units{
        {{tib, "TiB"}, {gib, "GiB"}, {mib, "MiB"}, {kib, "KiB"}}};
    for (const auto& [unit, name] : units)
        if (bytes >= unit)
            return fmt::format("{:.1f} {}", static_cast<double>(bytes) / static_cast<double>(unit),
                               name);
    return fmt::format("{} B", bytes);
}

Result<std::chrono::milliseconds> parse_duration(std::string_view text) {
    const auto bad = [&](std::string_view rule) {
        return fail(ErrorCode::invalid_argument,
                    fmt::format("'{}' is not a duration: {}", text, rule),
                    "write e.g. 90, 90s, 250ms, 5m or 1h30m; a bare number is seconds");
    };
    constexpr std::uint64_t limit_ms = 365ULL * 24 * 3600 * 1000;
    std::string_view rest = trim(text);
    if (rest.empty())
        return bad("it is empty");
    std::uint64_t total_ms = 0;
    while (!rest.empty()) {
        std::uint64_t number = 0;
        const auto [end, problem] = std::from_chars(rest.data(), rest.data() + rest.size(), number);
        if (problem == std::errc::result_out_of_range)
            return bad("it is above 365 days");
        if (problem != std::errc{})
            return bad("it must be numbers with units");
        rest.remove_prefix(static_cast<std::size_t>(end - rest.data()));
        const auto unit_end = std::min(rest.find_first_of("0123456789"), rest.size());
        const std::string_view unit = trim(rest.substr(0, unit_end));
        rest.remove_prefix(unit_end);
        std::uint64_t factor = 0;
        if (unit == "ms")
            factor = 1;
        else if (unit == "s" || unit.empty())
            factor = 1000;
        else if (unit == "m")
            factor = 60'000;
        else if (unit == "h")
            factor = 3'600'000;
        else if (unit == "d")
            factor = 86'400'000;
        else
            return bad(fmt::format("'{}' is not a unit", unit));
        if (number > limit_ms / factor || total_ms + number * factor > limit_ms)
            return bad("it is above 365 days");
        total_ms += number * factor;
    }
    return std::chrono::milliseconds(total_ms);
}

std::string format_duration(std::chrono::milliseconds duration) {
    const auto ms = duration.count();
    if (ms < 9'995)
        return fmt::format("{:.2f} s", static_cast<double>(ms) / 1000.0);
    if (ms < 60'000)
        return fmt::format("{:.1f} s", std::min(59.9, static_cast<double>(ms) / 1000.0));
    const auto seconds = ms / 1000;
    if (seconds < 3600)
        return fmt::format("{} m {:02} s", seconds / 60, seconds % 60);
    if (seconds < 86'400)
        return fmt::format("{} h {:02} m", seconds / 3600, seconds % 3600 / 60);
    return fmt::format("{} d {:02} h", seconds / 86'400, seconds % 86'400 / 3600);
}

} // namespace host_runner

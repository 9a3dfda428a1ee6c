// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Sizes and durations as people write them.

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "host_runner/base/error.hpp"

namespace host_runner {

inline constexpr std::uint64_t kib = 1024;
inline constexpr std::uint64_t mib = 1024 * kib;
inline constexpr std::uint64_t gib = 1024 * mib;
inline constexpr std::uint64_t tib = 1024 * gib;

/// Bytes from "32G", "512MiB", "2 TB", "8192": K, M, G, T are powers of 1024 with or without i
/// and B, in any case; a bare number is MiB (as the earlier host_runner read it); "B" is bytes.
/// Decimal fractions are taken where they give whole bytes ("1.5G").
/// @errors invalid_argument: not of that form, zero, or above 2^63-1
[[nodiscard]] Result<std::uint64_t> parse_size(std::string_view text);

/// The shortest exact form, e.g. 34359738368 -> "32G", 1536 MiB -> "1536M", 1000 -> "1000B".
[[nodiscard]] std::string format_size(std::uint64_t bytes);

/// A rounded form for people, e.g. "1.4 GiB".
[[nodiscard]] std::string format_size_rounded(std::uint64_t bytes);

/// "90", "90s", "250ms", "5m", "1h30m": a bare number is seconds.
/// @errors invalid_argument: not of that form or above 365 days
[[nodiscard]] Result<std::chrono::milliseconds> parse_duration(std::string_view text);

/// For people: "0.42 s", "12.3 s", "3 m 05 s", "2 h 10 m", "4 d 02 h".
[[nodiscard]] std::string format_duration(std::chrono::milliseconds duration);

} // namespace host_runner

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Logging to stderr by spdlog, set up once by main(). Results go to stdout, never through here.
///
/// Levels: error = an action the user asked for did not happen, exactly one per failure; warn =
/// abnormal, but it happened; info = rare state changes an operator wants; debug = argv, probes,
/// decisions; trace = every message, secrets removed. Never log a key, token, nonce or environment
/// value.

#include <string>
#include <string_view>
#include <vector>

#include <fmt/format.h>

#include "host_runner/base/error.hpp"

namespace host_runner::log {

enum class Level { trace, debug, info, warn, error, off };

/// @errors invalid_argument: not one of level_names()
[[nodiscard]] Result<Level> parse_level(std::string_view name);
[[nodiscard]] const std::vector<std::string>& level_names();

/// Lines look like "12:03:44.120 warn  [id] text" with `prefix` empty or an instance id; on a
/// terminal the level is coloured. Call before other threads start.
void set_up(Level level, std::string_view prefix = {});
[[nodiscard]] bool enabled(Level level) noexcept;
void write(Level level, std::string_view text);

template <class... Args>
void trace(fmt::format_string<Args...> format, Args&&... args) {
    if (enabled(Level::trace))
        write(Level::trace, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void debug(fmt::format_string<Args...> format, Args&&... args) {
    if (enabled(Level::debug))
        write(Level::debug, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void info(fmt::format_string<Args...> format, Args&&... args) {
    if (enabled(Level::info))
        write(Level::info, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void warn(fmt::format_string<Args...> format, Args&&... args) {
    if (enabled(Level::warn))
        write(Level::warn, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void error(fmt::format_string<Args...> format, Args&&... args) {
    if (enabled(Level::error))
        write(Level::error, fmt::format(format, std::forward<Args>(args)...));
}

} // namespace host_runner::log

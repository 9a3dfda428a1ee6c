// SPDX-License-Identifier: Apache-2.0
#include "host_runner/base/log.hpp"

#include <algorithm>
#include <memory>

#include <spdlog/sinks/ansicolor_sink.h>
#include <spdlog/spdlog.h>

namespace host_runner::log {

namespace {

spdlog::level::level_enum to_spdlog(Level level) noexcept {
    switch (level) {
    case Level::trace:
        return spdlog::level::trace;
    case Level::debug:
        return spdlog::level::debug;
    case Level::info:
        return spdlog::level::info;
    case Level::warn:
        return spdlog::level::warn;
    case Level::error:
        return spdlog::level::err;
    case Level::off:
        return spdlog::level::off;
    }
    return spdlog::level::info;
}

/// A logger of our own, so that no library's use of spdlog's default one mixes in.
std::shared_ptr<spdlog::logger>& logger() {
    static auto instance = [] {
        auto made = std::make_shared<spdlog::logger>(
            "host_runner", std::make_shared<spdlog::sinks::ansicolor_stderr_sink_mt>());
        made->set_level(spdlog::level::info);
        return made;
    }();
    return instance;
}

} // namespace

const std::vector<std::string>& level_names() {
    static const std::vector<std::string> names{"trace", "debug", "info", "warn", "error", "off"};
    return names;
}

Result<Level> parse_level(std::string_view name) {
    const auto& names = level_names();
    const auto found = std::find(names.begin(), names.end(), name);
    if (found == names.end())
        return fail(ErrorCode::invalid_argument, fmt::format("'{}' is not a log level", name),
                    "use trace, debug, info, warn, error or off");
    return static_cast<Level>(found - names.begin());
}

void set_up(Level level, std::string_view prefix) {
    logger()->set_level(to_spdlog(level));
    logger()->set_pattern(prefix.empty() ? std::string("%H:%M:%S.%e %^%-5l%$ %v")
                                         : fmt::format("%H:%M:%S.%e %^%-5l%$ [{}] %v", prefix));
    logger()->flush_on(spdlog::level::trace);
}

bool enabled(Level level) noexcept {
    return level != Level::off && logger()->should_log(to_spdlog(level));
}

void write(Level level, std::string_view text) {
    logger()->log(to_spdlog(level), "{}", text);
}

} // namespace host_runner::log

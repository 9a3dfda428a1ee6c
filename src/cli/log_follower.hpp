// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Reads a log from its last lines on and then what is appended, also over a rotation.

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "host_runner/base/error.hpp"
#include "host_runner/base/unique_fd.hpp"

namespace host_runner::cli {

class LogFollower {
public:
    using Sink = std::function<Result<void>(std::string_view)>;

    /// @param tail begin with the last lines only; nullopt: with the whole file
    /// @errors not_found: no such log; io_error
    [[nodiscard]] static Result<LogFollower> open(const std::string& path,
                                                  std::optional<std::uint32_t> tail);

    /// Passes on all that is there by now. A file that got shorter was copied away and begins
    /// anew (instance/logs.hpp), so it is read from its beginning.
    /// @errors io_error, and what `sink` gives
    [[nodiscard]] Result<void> read_new(const Sink& sink);

private:
    LogFollower(std::string path, UniqueFd fd) : path_(std::move(path)), fd_(std::move(fd)) {}
    [[nodiscard]] Result<std::uint64_t> size() const;
    [[nodiscard]] Result<std::uint64_t> offset_of_tail(std::uint32_t lines) const;

    std::string path_;
    UniqueFd fd_;
    std::uint64_t offset_ = 0;
};

} // namespace host_runner::cli

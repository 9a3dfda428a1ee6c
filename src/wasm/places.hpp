// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Counts the places of the engine's pool, so that a call waits for one instead of failing.

#include <chrono>
#include <cstdint>

#include "host_runner/base/error.hpp"
#include "host_runner/base/unique_fd.hpp"

namespace host_runner::wasm {

class Places {
public:
    using TimePoint = std::chrono::steady_clock::time_point;

    /// A counter of `count` free places. An eventfd and not a condition variable: the wait also has
    /// to see the descriptor by which a call is cancelled.
    [[nodiscard]] static Result<Places> make(std::uint32_t count);

    enum class Taken : std::uint8_t { taken, timed_out, cancelled };
    /// Waits for a place until `until`, or until `cancel_fd` (-1: none) is readable.
    [[nodiscard]] Taken take(TimePoint until, int cancel_fd) const noexcept;
    void give_back() const noexcept;

private:
    explicit Places(UniqueFd counter) noexcept : counter_(std::move(counter)) {}
    UniqueFd counter_;
};

} // namespace host_runner::wasm

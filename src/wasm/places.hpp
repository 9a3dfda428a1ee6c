// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Counts the places of the engine's pool, so that a call waits for one instead of failing. First
/// come, first served.

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <list>
#include <mutex>

#include "host_runner/base/error.hpp"
#include "host_runner/base/unique_fd.hpp"

namespace host_runner::wasm {

/// Thread-safe.
class Places {
public:
    using TimePoint = std::chrono::steady_clock::time_point;

    explicit Places(std::uint32_t count) noexcept : free_(count) {}
    Places(const Places&) = delete;
    Places& operator=(const Places&) = delete;

    enum class Taken : std::uint8_t { taken, timed_out, cancelled };
    /// Takes a free place at once, else waits for its turn until `until`, or until `cancel_fd`
    /// (-1: none) is readable.
    /// @errors resource_exhausted: no descriptor to wait with
    [[nodiscard]] Result<Taken> take(TimePoint until, int cancel_fd);
    /// Hands the place to who has waited longest.
    void give_back() noexcept;

    /// How many wait now.
    [[nodiscard]] std::size_t waiting() const;

private:
    /// Each has an eventfd, and not all one condition variable: the wait also has to see the
    /// descriptor by which a call is cancelled.
    struct Waiter {
        UniqueFd wakeup;
        bool has_place = false;
    };

    mutable std::mutex mutex_; // guards what follows
    std::uint32_t free_;       ///< 0 while somebody waits.
    std::list<Waiter*> waiting_;
};

} // namespace host_runner::wasm

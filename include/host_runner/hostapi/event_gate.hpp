// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Bounds what a guest's events may cost the host: a token bucket, so that a boot's burst passes
/// and a flood does not.
///
///     EventGate gate;
///     if (const auto passed = gate.pass(EventGate::Clock::now())) ... // *passed dropped before it

#include <chrono>
#include <cstdint>
#include <optional>

namespace host_runner::hostapi {

class EventGate {
public:
    using Clock = std::chrono::steady_clock;
    static constexpr double burst = 50;
    static constexpr double per_second = 20;

    /// nullopt: drop this event. Else how many were dropped since the last one that passed.
    /// Not thread-safe.
    [[nodiscard]] std::optional<std::uint64_t> pass(Clock::time_point now);

private:
    double tokens_ = burst;
    std::optional<Clock::time_point> last_;
    std::uint64_t dropped_ = 0;
};

} // namespace host_runner::hostapi

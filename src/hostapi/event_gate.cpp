// SPDX-License-Identifier: Apache-2.0
#include "host_runner/hostapi/event_gate.hpp"

#include <algorithm>
#include <utility>

namespace host_runner::hostapi {

std::optional<std::uint64_t> EventGate::pass(Clock::time_point now) {
    if (last_) {
        const std::chrono::duration<double> since = now - *last_;
        tokens_ = std::min(burst, tokens_ + since.count() * per_second);
    }
    last_ = now;
    if (tokens_ < 1) {
        ++dropped_;
        return std::nullopt;
    }
    tokens_ -= 1;
    return std::exchange(dropped_, 0);
}

} // namespace host_runner::hostapi

// SPDX-License-Identifier: Apache-2.0
#include "host_runner/instance/stop_ladder.hpp"

#include <numeric>

#include "host_runner/base/units.hpp"

namespace host_runner::instance {

using std::chrono::milliseconds;

std::string_view to_string(StopStepKind kind) noexcept {
    switch (kind) {
    case StopStepKind::guest_shutdown:
        return "guest API Shutdown";
    case StopStepKind::system_powerdown:
        return "QMP system_powerdown";
    case StopStepKind::qmp_quit:
        return "QMP quit";
    case StopStepKind::terminate:
        return "SIGTERM";
    case StopStepKind::kill:
        return "SIGKILL";
    }
    return "?";
}

milliseconds total_limit(const std::vector<LadderStep>& ladder) noexcept {
    return std::accumulate(
        ladder.begin(), ladder.end(), milliseconds(0),
        [](milliseconds sum, const LadderStep& step) { return sum + step.limit; });
}

std::vector<LadderStep> plan_stop_ladder(const StopLadderInput& input) {
    // Whole GiB, the first one counted.
    const auto gibibytes = static_cast<std::int64_t>((input.memory_bytes + gib - 1) / gib);
    const auto limit = [&](int base_s, int per_gib_ms) {
        return milliseconds(base_s * 1000 + per_gib_ms * gibibytes);
    };
    std::vector<LadderStep> ladder;
    if (input.guest_is_up) {
        // Above the 10 s that a service gets by default, twice: one may wait for another.
        if (input.has_guest_api)
            ladder.push_back({StopStepKind::guest_shutdown, limit(30, 500)});
        ladder.push_back({StopStepKind::system_powerdown, limit(15, 250)});
    }
    ladder.push_back({StopStepKind::qmp_quit, limit(10, 500)});
    ladder.push_back({StopStepKind::terminate, limit(5, 500)});

    const auto sum = total_limit(ladder);
    if (input.total > milliseconds(0) && input.total < sum)
        for (auto& step : ladder)
            step.limit = milliseconds(step.limit.count() * input.total.count() / sum.count());
    ladder.push_back({StopStepKind::kill, limit(10, 500)});
    return ladder;
}

} // namespace host_runner::instance

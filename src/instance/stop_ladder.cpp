// SPDX-License-Identifier: Apache-2.0
#include "host_runner/instance/stop_ladder.hpp"

#include <numeric>

#include "host_runner/base/units.hpp"

namespace host_runner::instance {

using std::chrono::milliseconds;
using namespace std::chrono_literals;

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
    const auto limit = [&](std::chrono::seconds base, milliseconds per_gib) -> milliseconds {
        return base + per_gib * gibibytes;
    };
    std::vector<LadderStep> ladder;
    if (input.guest_is_up) {
        // Above the 10 s that a service gets by default, twice: one may wait for another.
        if (input.has_guest_api)
            ladder.push_back({StopStepKind::guest_shutdown, limit(30s, 500ms)});
        ladder.push_back({StopStepKind::system_powerdown, limit(15s, 250ms)});
    }
    if (input.has_qmp)
        ladder.push_back({StopStepKind::qmp_quit, limit(10s, 500ms)});
    ladder.push_back({StopStepKind::terminate, limit(5s, 500ms)});

    const auto sum = total_limit(ladder);
    if (input.total > milliseconds(0) && input.total < sum)
        for (auto& step : ladder)
            step.limit = milliseconds(step.limit.count() * input.total.count() / sum.count());
    ladder.push_back({StopStepKind::kill, limit(10s, 500ms)});
    return ladder;
}

} // namespace host_runner::instance

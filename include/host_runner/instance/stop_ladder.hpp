// SPDX-License-Identifier: Apache-2.0
#pragma once

/// How a VM is stopped: five steps, each firmer than the one before, each with a stated limit.
///
///     for (const auto& step : plan_stop_ladder({.memory_bytes = 32 * gib}))
///         fmt::print("{}: at most {}\n", to_string(step.kind), format_duration(step.limit));

#include <chrono>
#include <cstdint>
#include <string_view>
#include <vector>

namespace host_runner::instance {

enum class StopStepKind {
    guest_shutdown,   ///< Shutdown over the guest API: services end in order.
    system_powerdown, ///< QMP system_powerdown: the power button.
    qmp_quit,         ///< QMP quit: QEMU ends, the guest is not asked.
    terminate,        ///< SIGTERM to QEMU.
    kill,             ///< SIGKILL to QEMU. Its limit is an expectation: the kernel decides.
};

/// As shown to people, e.g. "guest API Shutdown".
[[nodiscard]] std::string_view to_string(StopStepKind kind) noexcept;

struct LadderStep {
    StopStepKind kind = StopStepKind::kill;
    std::chrono::milliseconds limit{0}; ///< Then the next step begins.
};

struct StopLadderInput {
    std::uint64_t memory_bytes = 0;
    /// The guest has shown that somebody in it listens. One that never did has nothing to save,
    /// and would only let the first two steps run out.
    bool guest_is_up = true;
    bool has_guest_api = true;          ///< False: the image has none that we can reach.
    bool has_qmp = true;                ///< False: libvirt has it, and no `quit` of ours.
    std::chrono::milliseconds total{0}; ///< SIGKILL comes no later than this; 0: no cap.
};

/// The steps in their order; the last one is always `kill`. The limits grow with memory: giving
/// back the pages of a TD takes the kernel seconds per 10 GiB (kata-containers#13535), and a guest
/// with more memory has more to write out. A `total` below the sum shortens all steps before the
/// last one in proportion. Pure.
[[nodiscard]] std::vector<LadderStep> plan_stop_ladder(const StopLadderInput& input);

/// The sum of the limits.
[[nodiscard]] std::chrono::milliseconds total_limit(const std::vector<LadderStep>& ladder) noexcept;

} // namespace host_runner::instance

// SPDX-License-Identifier: Apache-2.0
#include "host_runner/instance/ending.hpp"

#include <algorithm>
#include <csignal>

#include <fmt/format.h>

#include "host_runner/qemu/diagnose.hpp"

namespace host_runner::instance {

namespace {

/// QEMU's words with what they mean, when the table knows them.
std::string explain_stderr(const EndFacts& facts) {
    if (const auto known = qemu::diagnose(facts.stderr_text))
        return fmt::format("{}; {} (QEMU: {})", known->meaning, known->remedy, known->raw_line);
    const auto line = qemu::last_relevant_line(facts.stderr_text);
    const auto exit = facts.exit_words.empty() ? facts.exit.describe() : facts.exit_words;
    return line.empty() ? exit : fmt::format("{} (QEMU: {})", exit, line);
}

/// A guest that gave up while booting says why in boot.error, then powers off or resets.
bool failed_to_boot(const EndFacts& facts) {
    return !facts.was_ready && !facts.boot_error.empty();
}

End make_end(const EndFacts& facts, EndReason reason, ExitCode code, std::string detail) {
    return {facts.time_ms, reason, code, std::move(detail)};
}

} // namespace

End decide_end(const EndFacts& facts) {
    const auto end = [&](EndReason reason, ExitCode code, std::string detail) {
        return make_end(facts, reason, code, std::move(detail));
    };
    if (facts.kill_sent)
        return end(EndReason::killed_by_force, ExitCode::stopped_by_force, facts.stop_step);
    // SIGTERM ends QEMU by signal only before it has set its handler up.
    const bool by_signal = !facts.exit.exited;
    if (facts.stop_requested && (!by_signal || facts.exit.signal == SIGTERM))
        return end(EndReason::stop_requested, ExitCode::success, facts.stop_step);
    if (by_signal)
        return end(EndReason::qemu_died, ExitCode::qemu_died, explain_stderr(facts));
    if (facts.panicked || facts.shutdown == qemu::ShutdownReason::guest_panic)
        return end(EndReason::guest_panic, ExitCode::guest_panic, facts.panic_message);
    if (!facts.shutdown) {
        if (!facts.qmp_answered)
            return end(EndReason::qemu_start_failed, ExitCode::qemu_start_failed,
                       explain_stderr(facts));
        return end(EndReason::qemu_died, ExitCode::qemu_died, explain_stderr(facts));
    }
    switch (*facts.shutdown) {
    case qemu::ShutdownReason::guest_shutdown:
        if (failed_to_boot(facts))
            return end(EndReason::guest_boot_error, ExitCode::guest_boot_error, facts.boot_error);
        return end(EndReason::guest_shutdown, ExitCode::success, "");
    case qemu::ShutdownReason::guest_reset:
        if (failed_to_boot(facts))
            return end(EndReason::guest_boot_error, ExitCode::guest_boot_error, facts.boot_error);
        return end(EndReason::guest_reset, ExitCode::guest_reset, "");
    case qemu::ShutdownReason::host_quit:
    case qemu::ShutdownReason::host_signal:
        return end(
            EndReason::qemu_died, ExitCode::qemu_died,
            fmt::format("another process told QEMU to end ({})", qemu::to_string(*facts.shutdown)));
    case qemu::ShutdownReason::guest_panic:
    case qemu::ShutdownReason::host_error:
    case qemu::ShutdownReason::other:
        break;
    }
    return end(EndReason::qemu_died, ExitCode::qemu_died, explain_stderr(facts));
}

bool is_port_conflict(const EndFacts& facts) {
    // QEMU net/slirp.c, slirp_hostfwd(); 7.2 to 11.1 word it alike.
    return !facts.qmp_answered &&
           facts.stderr_text.find("Could not set up host forwarding rule") != std::string::npos;
}

bool is_failure(EndReason reason) noexcept {
    switch (reason) {
    case EndReason::guest_reset:
    case EndReason::guest_panic:
    case EndReason::guest_boot_error:
    case EndReason::qemu_died:
        return true;
    case EndReason::guest_shutdown:
    case EndReason::stop_requested:
    case EndReason::killed_by_force:
    case EndReason::qemu_start_failed:
    case EndReason::start_failed:
    case EndReason::runner_died:
        return false;
    }
    return false;
}

std::optional<std::chrono::milliseconds> RestartBackOff::next(std::chrono::milliseconds uptime) {
    if (!rule_.on_failure)
        return std::nullopt;
    if (uptime >= times_.reset_after)
        count_ = 0;
    if (count_ >= rule_.max_restarts)
        return std::nullopt;
    auto delay = times_.first;
    for (std::uint32_t i = 0; i < count_ && delay < times_.longest; ++i)
        delay *= 2;
    ++count_;
    return std::min(delay, times_.longest);
}

} // namespace host_runner::instance

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// What the end of a QEMU process means, and what follows from it. Pure.

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "host_runner/base/process.hpp"
#include "host_runner/instance/record.hpp"
#include "host_runner/qemu/qmp_client.hpp"
#include "host_runner/spec/vm_spec.hpp"

namespace host_runner::instance {

/// Everything seen of one QEMU process from its start to its end.
struct EndFacts {
    ExitStatus exit;
    std::string exit_words; ///< In place of `exit` where that is not known; else empty.
    /// Of the last SHUTDOWN event. QEMU exits with 0 after a guest's poweroff, `quit` and SIGTERM
    /// alike; only this tells them apart.
    std::optional<qemu::ShutdownReason> shutdown;
    bool panicked = false;     ///< A GUEST_PANICKED event came.
    std::string panic_message; ///< Its words; may be empty.
    bool qmp_answered = false; ///< QEMU had got through its command line.
    std::string stderr_text;   ///< Of this start.
    bool was_ready = false;
    std::string boot_error; ///< The guest's last boot.error; empty: none.
    bool stop_requested = false;
    bool kill_sent = false;   ///< Our SIGKILL.
    std::string stop_step;    ///< The last step of the stop ladder.
    std::int64_t time_ms = 0; ///< Now, Unix time.
};

[[nodiscard]] End decide_end(const EndFacts& facts);

/// True when QEMU gave up because a forwarded host port was taken between our test and its bind.
[[nodiscard]] bool is_port_conflict(const EndFacts& facts);

/// True for the ends after which `--restart on-failure` starts the VM again: it crashed, panicked,
/// failed to boot or reset itself. Not for what was asked for, nor when QEMU refused its command
/// line the first time.
[[nodiscard]] bool is_failure(EndReason reason) noexcept;

/// When to start again: 5 s after the first failure, doubling up to 300 s, at most `max_restarts`
/// in a row; both start anew once a run was up for 300 s (the figures of dstack 0.6's vmm).
class RestartBackOff {
public:
    struct Times {
        std::chrono::milliseconds first{5'000};
        std::chrono::milliseconds longest{300'000};
        std::chrono::milliseconds reset_after{300'000};
    };
    explicit RestartBackOff(spec::RestartRule rule) : RestartBackOff(rule, Times{}) {}
    RestartBackOff(spec::RestartRule rule, Times times) : rule_(rule), times_(times) {}

    /// The delay after a failure of a run that was up for `uptime`; nullopt: no more.
    [[nodiscard]] std::optional<std::chrono::milliseconds> next(std::chrono::milliseconds uptime);
    /// How many in a row so far.
    [[nodiscard]] std::uint32_t count() const noexcept {
        return count_;
    }

private:
    spec::RestartRule rule_;
    Times times_;
    std::uint32_t count_ = 0;
};

} // namespace host_runner::instance

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The runner's control socket (control.sock, 0600): one JSON line asks, JSON lines answer.
///
///     {"command":"status"}  ->  LiveStatus
///     {"command":"services"}  ->  {"services":"..."}: what the guest says of them now, as it says
///     it
///     {"command":"stop","timeout_ms":0,"force":false}  ->  a StopStep per step of the ladder, the
///                                                          last one with "done":true
///     anything else  ->  {"error":"..."}
///
/// The peer must have the runner's uid or be root (SO_PEERCRED). control_server.hpp is the other
/// end.

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <sys/types.h>

#include "host_runner/base/error.hpp"

namespace host_runner::instance {

/// What only the living runner knows.
struct LiveStatus {
    std::string phase; ///< preparing, starting, booting, ready, stopping, restarting
    pid_t runner_pid = 0;
    pid_t qemu_pid = 0;               ///< 0: none at the moment.
    std::int64_t uptime_ms = 0;       ///< Since QEMU's start.
    std::int64_t ready_after_ms = -1; ///< From the start of run to ready; -1: not yet.
    std::string last_progress;        ///< The last boot.progress or boot.error.
    std::string qmp_status;           ///< QMP query-status, e.g. "running"; empty when unknown.
    std::string guest_info_json; ///< protocol::GuestInfo as the guest sent it; empty when unknown.
    std::string services_json;   ///< protocol::ServiceStatus list, when the guest was asked last;
                                 ///< empty when unknown.
    std::uint32_t restarts = 0;
};

struct StopStep {
    std::string text; ///< e.g. "guest API Shutdown" / "QMP quit"
    std::int64_t elapsed_ms = 0;
    std::int64_t limit_ms = 0;
    bool done = false;
};

[[nodiscard]] std::string encode_live_status(const LiveStatus& status);
[[nodiscard]] Result<LiveStatus> decode_live_status(std::string_view json);

/// @errors unavailable: nobody answers within `timeout`; corrupt_data
[[nodiscard]] Result<LiveStatus> ask_status(const std::string& control_socket,
                                            std::chrono::milliseconds timeout);

/// Asks many side by side, all within one `timeout`; the answers are in the sockets' order.
[[nodiscard]] std::vector<Result<LiveStatus>>
ask_statuses(const std::vector<std::string>& control_sockets, std::chrono::milliseconds timeout);

/// Has the runner ask the guest how its services are now.
/// @return a protocol::ServiceStatus list, as the guest sent it
/// @errors unavailable: nobody answers within `timeout`; wrong_state: the runner says that the
/// guest cannot be asked, or does not answer; corrupt_data
[[nodiscard]] Result<std::string> ask_services(const std::string& control_socket,
                                               std::chrono::milliseconds timeout);

struct StopRequest {
    std::chrono::milliseconds timeout{0}; ///< For the whole ladder; 0: the runner's own.
    bool force = false;                   ///< Straight to SIGKILL.
};
/// Asks for the stop and follows it until the runner has ended (its lock is free). A runner that
/// only just begins, and has no socket yet, is given 5 s for it. Success when none runs.
/// @errors unavailable; timeout: still running when the deadline (a step's limit + 10 s) passed
[[nodiscard]] Result<void> request_stop(const std::string& control_socket,
                                        const std::string& lock_path, const StopRequest& request,
                                        const std::function<void(const StopStep&)>& on_step);

} // namespace host_runner::instance

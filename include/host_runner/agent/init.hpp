// SPDX-License-Identifier: Apache-2.0
#pragma once

/// PID 1 of the guest: mounts the system's file systems, starts the agent proper as its child,
/// reaps orphans, and ends the machine when the agent ends. Kept this small so that it never fails,
/// and so that a crash of the agent is a reported reset, not a kernel panic.

#include <string>

#include "host_runner/base/process.hpp"

namespace host_runner::agent {

/// How the machine ends, by how the agent ended: exit code 0 asks for power off; everything else
/// is a failure, and a reset tells the runner so.
enum class MachineEnd { power_off, reset };
[[nodiscard]] MachineEnd machine_end(const ExitStatus& agent) noexcept;

/// Never returns in PID 1. `program` is the agent's own path, started as `program boot`.
[[noreturn]] void run_init(const std::string& program);

} // namespace host_runner::agent

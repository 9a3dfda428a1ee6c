// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The agent proper: from the mounted system to running services, until the machine shall end.

#include <string>

#include "host_runner/agent/prepare_services.hpp"

namespace host_runner::agent {

/// Boots and runs until shut down. Call from the main thread, with no other threads yet.
/// @return the process's exit code: 0 = power off, 1 = the boot failed
[[nodiscard]] int run_agent(const GuestPaths& paths, const std::string& program);

} // namespace host_runner::agent

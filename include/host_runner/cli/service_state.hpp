// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "host_runner/instance/run.hpp"

namespace host_runner::cli {

/// What a service manager is told of an event of a run (see base/service_manager.hpp): READY once
/// the guest is ready, STOPPING with the time that the step takes, and a STATUS line for people.
/// Empty: nothing.
[[nodiscard]] std::string service_state(const instance::RunEvent& event);

} // namespace host_runner::cli

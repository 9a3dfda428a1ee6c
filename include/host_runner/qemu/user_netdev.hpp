// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "host_runner/qemu/launch_plan.hpp"

namespace host_runner::qemu {

/// The value of `-netdev` for QEMU's own user network, as JSON: 10.0.2.0/24, closed without egress,
/// with the plan's forwarded ports. Pure.
[[nodiscard]] std::string user_netdev(const LaunchPlan& plan);

} // namespace host_runner::qemu

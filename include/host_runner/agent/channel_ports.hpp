// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The virtio-serial ports by their names. (/dev/virtio-ports is made by udev, which our image does
/// not have.)

#include <chrono>
#include <string>
#include <string_view>

#include "host_runner/base/error.hpp"

namespace host_runner::agent {

/// The character device, e.g. /dev/vport1p2, of the port that the host named `name`. Ports appear
/// one by one while the driver talks to the host, so a missing one is looked for until `timeout`.
/// @param sys_class e.g. /sys/class/virtio-ports
/// @errors not_found: no such port
/// Source: linux drivers/char/virtio_console.c, attribute "name"
[[nodiscard]] Result<std::string> find_channel_port(const std::string& sys_class,
                                                    const std::string& devices,
                                                    std::string_view name,
                                                    std::chrono::milliseconds timeout);

} // namespace host_runner::agent

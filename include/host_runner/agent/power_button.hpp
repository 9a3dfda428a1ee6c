// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The ACPI power button, which QMP's system_powerdown presses.

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "host_runner/base/error.hpp"
#include "host_runner/base/event_loop.hpp"
#include "host_runner/base/unique_fd.hpp"

namespace host_runner::agent {

class PowerButton {
public:
    /// Calls back on the loop for each press on any event* device in `input_directory`
    /// (/dev/input). Keep the object as long as the loop runs.
    /// @errors not_found: there is no input device (module evdev or button is missing)
    [[nodiscard]] static Result<PowerButton> watch(EventLoop& loop,
                                                   const std::string& input_directory,
                                                   const std::function<void()>& on_press);

private:
    std::vector<UniqueFd> devices_;
};

/// True when `bytes`, whole struct input_event records, hold a press of KEY_POWER.
/// Source: linux include/uapi/linux/input.h
[[nodiscard]] bool holds_power_press(std::string_view bytes);

} // namespace host_runner::agent

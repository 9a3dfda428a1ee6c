// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The lines on the control socket, for both of its ends.

#include <cstddef>
#include <string>
#include <string_view>

#include "host_runner/base/error.hpp"
#include "host_runner/instance/control.hpp"

namespace host_runner::instance {

inline constexpr std::size_t max_control_request_bytes = 4096;
/// The guest's own words are in a status: they are capped where they come in.
inline constexpr std::size_t max_control_answer_bytes = 1 << 20;

struct ControlRequest {
    enum class Command { status, services, stop };
    Command command = Command::status;
    StopRequest stop;
};
[[nodiscard]] std::string encode_control_request(const ControlRequest& request);
/// @errors invalid_argument
[[nodiscard]] Result<ControlRequest> decode_control_request(std::string_view line);

[[nodiscard]] std::string encode_services_answer(const std::string& services_json);
/// @errors corrupt_data; wrong_state: the line is an error of the runner
[[nodiscard]] Result<std::string> decode_services_answer(std::string_view line);

[[nodiscard]] std::string encode_stop_step(const StopStep& step);
/// @errors corrupt_data; wrong_state: the line is an error of the runner
[[nodiscard]] Result<StopStep> decode_stop_step(std::string_view line);

[[nodiscard]] std::string encode_control_error(std::string_view message);

} // namespace host_runner::instance

// SPDX-License-Identifier: Apache-2.0
#include "control_wire.hpp"

#include <fmt/format.h>

#include "host_runner/base/units.hpp"
#include "json_fields.hpp"

namespace host_runner::instance {

using nlohmann::json;
using nlohmann::ordered_json;
using std::chrono::milliseconds;

namespace {

/// An "error" member is the runner's answer instead of what was asked for.
template <class T, class Decode>
Result<T> decode_answer(std::string_view line, const Decode& decode) {
    return decode_object<T>(line, max_control_answer_bytes, ErrorCode::corrupt_data,
                            "The runner's answer", [&](const json& object) -> Result<T> {
                                std::string error;
                                read_field(object, "error", error);
                                if (!error.empty())
                                    return fail(ErrorCode::wrong_state,
                                                "The runner refuses: " + error);
                                return decode(object);
                            });
}

} // namespace

std::string encode_control_request(const ControlRequest& request) {
    if (request.command == ControlRequest::Command::status)
        return "{\"command\":\"status\"}\n";
    if (request.command == ControlRequest::Command::services)
        return "{\"command\":\"services\"}\n";
    return to_line({{"command", "stop"},
                    {"timeout_ms", request.stop.timeout.count()},
                    {"force", request.stop.force}}) +
           "\n";
}

Result<ControlRequest> decode_control_request(std::string_view line) {
    return decode_object<ControlRequest>(
        line, max_control_request_bytes, ErrorCode::invalid_argument, "The request",
        [](const json& object) -> Result<ControlRequest> {
            ControlRequest request;
            std::string command;
            read_field(object, "command", command);
            if (command == "status")
                return request;
            if (command == "services") {
                request.command = ControlRequest::Command::services;
                return request;
            }
            if (command != "stop")
                return fail(ErrorCode::invalid_argument,
                            fmt::format("Unknown command '{}'", command),
                            "status, services or stop");
            request.command = ControlRequest::Command::stop;
            constexpr milliseconds longest = std::chrono::hours(24 * 365);
            milliseconds::rep timeout = 0;
            read_field(object, "timeout_ms", timeout);
            if (timeout < 0 || timeout > longest.count())
                return fail(ErrorCode::invalid_argument,
                            fmt::format("timeout_ms {} is not from 0 to 365 days", timeout));
            request.stop.timeout = milliseconds(timeout);
            read_field(object, "force", request.stop.force);
            return request;
        });
}

std::string encode_services_answer(const std::string& services_json) {
    return to_line({{"services", services_json}}) + "\n";
}

Result<std::string> decode_services_answer(std::string_view line) {
    return decode_answer<std::string>(line, [](const json& object) -> Result<std::string> {
        std::string services;
        read_field(object, "services", services);
        return services;
    });
}

std::string encode_stop_step(const StopStep& step) {
    return to_line({{"text", step.text},
                    {"elapsed_ms", step.elapsed_ms},
                    {"limit_ms", step.limit_ms},
                    {"done", step.done}}) +
           "\n";
}

Result<StopStep> decode_stop_step(std::string_view line) {
    return decode_answer<StopStep>(line, [](const json& object) -> Result<StopStep> {
        StopStep step;
        read_field(object, "text", step.text);
        read_field(object, "elapsed_ms", step.elapsed_ms);
        read_field(object, "limit_ms", step.limit_ms);
        read_field(object, "done", step.done);
        return step;
    });
}

std::string encode_control_error(std::string_view message) {
    return to_line({{"error", message}}) + "\n";
}

std::string encode_live_status(const LiveStatus& status) {
    return to_line({{"phase", status.phase},
                    {"runner_pid", status.runner_pid},
                    {"qemu_pid", status.qemu_pid},
                    {"uptime_ms", status.uptime_ms},
                    {"ready_after_ms", status.ready_after_ms},
                    {"last_progress", status.last_progress},
                    {"qmp_status", status.qmp_status},
                    {"guest_info", status.guest_info_json},
                    {"services", status.services_json},
                    {"restarts", status.restarts}}) +
           "\n";
}

Result<LiveStatus> decode_live_status(std::string_view text) {
    return decode_answer<LiveStatus>(text, [](const json& object) -> Result<LiveStatus> {
        LiveStatus status;
        read_field(object, "phase", status.phase);
        read_field(object, "runner_pid", status.runner_pid);
        read_field(object, "qemu_pid", status.qemu_pid);
        read_field(object, "uptime_ms", status.uptime_ms);
        read_field(object, "ready_after_ms", status.ready_after_ms);
        read_field(object, "last_progress", status.last_progress);
        read_field(object, "qmp_status", status.qmp_status);
        read_field(object, "guest_info", status.guest_info_json);
        read_field(object, "services", status.services_json);
        read_field(object, "restarts", status.restarts);
        if (status.phase.empty())
            return fail(ErrorCode::corrupt_data, "The runner's answer names no phase");
        return status;
    });
}

} // namespace host_runner::instance

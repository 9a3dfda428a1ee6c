// SPDX-License-Identifier: Apache-2.0
#include <csignal>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "function_call.hpp"
#include "host_runner/base/files.hpp"
#include "host_runner/base/units.hpp"
#include "host_runner/crypto/digest.hpp"
#include "host_runner/protocol/app_compose.hpp"
#include "terminal.hpp"
#include "verbs.hpp"

namespace host_runner::cli {

namespace {

constexpr std::chrono::seconds port_patience{30};
constexpr std::chrono::seconds answer_patience{10};
constexpr std::size_t max_data_bytes = 256 * mib;

/// "text", "@FILE", or "@-" for our stdin.
Result<void> take_data(const std::string& data, FunctionCall& call) {
    if (data == "@-") {
        call.forward_stdin = true;
    } else if (data.starts_with('@')) {
        HR_TRY(call.input, read_file(data.substr(1), max_data_bytes));
    } else {
        call.input = data;
    }
    return {};
}

Result<FunctionCall> make_call(const Context& context) {
    const auto& settings = context.settings;
    FunctionCall call;
    call.request.function = context.argument(1);
    call.request.arguments = context.invocation.arguments.at(2);
    HR_TRY(const auto variables, settings.parsed_list("env", parse_variable));
    for (const auto& [name, value] : variables)
        call.request.environment[name] = value;
    HR_TRY(const auto timeout, settings.parsed_if_set("timeout", parse_duration));
    call.request.timeout = timeout.value_or(std::chrono::milliseconds(0));
    HR_TRY(call.request.output_bytes, settings.parsed_if_set("max-output", parse_size));
    call.keep_output = settings.text("output") == "json";
    HR_CHECK(take_data(settings.text("data"), call));
    return call;
}

/// Bytes as text where they are text, else as base64 under a name that says so.
void add_bytes(nlohmann::ordered_json& json, const std::string& name, const std::string& bytes) {
    const bool is_text = protocol::is_plain_text(bytes);
    json[name] = is_text ? nlohmann::ordered_json(bytes) : nlohmann::ordered_json(nullptr);
    if (!is_text)
        json[name + "_base64"] =
            crypto::to_base64({reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()});
}

std::string format_json(const std::string& function, const FunctionAnswer& answer) {
    const auto& result = answer.result;
    nlohmann::ordered_json json{{"schema_version", 1},
                                {"function", function},
                                {"status", to_string(result.status)},
                                {"exit_code", result.status == protocol::CallStatus::exit
                                                  ? nlohmann::ordered_json(result.code)
                                                  : nlohmann::ordered_json(nullptr)},
                                {"message", TerminalFilter().pass(result.message)},
                                {"duration_us", result.duration.count()},
                                {"memory_peak_bytes", result.memory_peak_bytes},
                                {"truncated", result.truncated},
                                {"stdout_bytes", result.output_bytes},
                                {"stderr_bytes", result.error_output_bytes}};
    add_bytes(json, "stdout", answer.output);
    add_bytes(json, "stderr", answer.error_output);
    add_bytes(json, "combined", answer.combined);
    return json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

/// A VM's port, or the socket of `guest_agent --dev`, which is a path.
Result<instance::InvocationPort> find_port(const std::string& where) {
    if (where.find('/') != std::string::npos) {
        if (!path_exists(where))
            return fail(ErrorCode::not_found, fmt::format("There is no socket {}", where),
                        "guest_agent --dev names it when it starts");
        return instance::InvocationPort{where, {}};
    }
    HR_TRY(const auto registry, open_registry());
    HR_TRY(const auto one, find_running(registry, where));
    return instance::lock_invocation_port(registry.paths(one.record.id), port_patience);
}

} // namespace

VerbResult run_verb_invoke(const Context& context) {
    HR_TRY(const auto call, make_call(context));
    HR_TRY(const auto port, find_port(context.argument(0)));
    HR_TRY(const auto loop, EventLoop::create());
    std::function<void()> cancel;
    bool was_cancelled = false;
    HR_CHECK(loop->watch_signals({SIGINT, SIGTERM}, [&](int) {
        if (std::exchange(was_cancelled, true) || !cancel)
            loop->stop(); // the second one does not wait for the guest
        else
            cancel();
    }));
    HR_TRY(const auto session,
           instance::FunctionSession::open(*loop, port.socket, answer_patience));
    HR_TRY(const auto answer,
           run_function_call(*loop, *session, call, [&](std::function<void()> can_cancel) {
               cancel = std::move(can_cancel);
           }));
    if (call.keep_output)
        HR_CHECK(print_out(format_json(call.request.function, answer)));
    print_end(call.request.function, answer.result);
    return exit_code_of(answer.result);
}

} // namespace host_runner::cli

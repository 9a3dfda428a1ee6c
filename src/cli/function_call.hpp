// SPDX-License-Identifier: Apache-2.0
#pragma once

/// One call of a guest's function, with our standard descriptors as its own.

#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "host_runner/base/error.hpp"
#include "host_runner/base/event_loop.hpp"
#include "host_runner/instance/function_session.hpp"
#include "host_runner/protocol/invocation.hpp"

namespace host_runner::cli {

struct FunctionCall {
    protocol::InvokeRequest request;
    std::string input;          ///< For its stdin,
    bool forward_stdin = false; ///< or what comes on ours.
    bool keep_output = false;   ///< Keep it all in memory; else it goes to stdout and stderr.
};

struct FunctionAnswer {
    protocol::InvokeResult result;
    // With keep_output:
    std::string output;
    std::string error_output;
    std::string combined; ///< Both in the order in which they came.
};

/// "NAME=value", for parsed_list(). @errors invalid_argument
[[nodiscard]] Result<std::vector<std::pair<std::string, std::string>>>
parse_variable(std::string_view text);

/// Runs the loop until the call has ended and all that it wrote is written.
/// @param on_begin gets what cancels the call; for signal handlers of the same loop. May be empty.
/// @errors as FunctionSession::begin(); io_error: stdout cannot be written
[[nodiscard]] Result<FunctionAnswer>
run_function_call(EventLoop& loop, instance::FunctionSession& session, const FunctionCall& call,
                  const std::function<void(std::function<void()>)>& on_begin = {});

/// Says on stderr what its output does not: how it ended, where not by itself, and what was cut.
void print_end(const std::string& function, const protocol::InvokeResult& result);

/// What a shell shall see of it: the module's own exit code, or what programs that end likewise
/// have (as worker::WorkerExit); 1, 2 and 7 where it did not run.
[[nodiscard]] int exit_code_of(const protocol::InvokeResult& result) noexcept;

} // namespace host_runner::cli

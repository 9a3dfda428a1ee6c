// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The verbs, one file each, and what they share.

#include <string>
#include <string_view>
#include <vector>

#include "host_runner/base/error.hpp"
#include "host_runner/base/exit_code.hpp"
#include "host_runner/cli/command_line.hpp"
#include "host_runner/config/settings.hpp"
#include "host_runner/instance/registry.hpp"

namespace host_runner::cli {

struct Context {
    const Invocation& invocation;
    const config::Settings& settings;
    const config::Places& places;
    /// As main() got them, without the program's name: for starting ourselves again.
    const std::vector<std::string>& raw_arguments;

    /// The first value of the verb's n-th positional; empty when it was left out.
    [[nodiscard]] std::string argument(std::size_t index) const {
        const auto& values = invocation.arguments.at(index);
        return values.empty() ? std::string() : values.front();
    }
};

/// The exit code; an error is printed by the caller.
using VerbResult = Result<int>;

[[nodiscard]] VerbResult run_verb_run(const Context& context);
[[nodiscard]] VerbResult run_verb_list(const Context& context);
[[nodiscard]] VerbResult run_verb_stop(const Context& context);
[[nodiscard]] VerbResult run_verb_logs(const Context& context);
[[nodiscard]] VerbResult run_verb_console(const Context& context);
[[nodiscard]] VerbResult run_verb_exec(const Context& context);
[[nodiscard]] VerbResult run_verb_invoke(const Context& context);
[[nodiscard]] VerbResult run_verb_run_wasm(const Context& context);
[[nodiscard]] VerbResult run_verb_inspect(const Context& context);
[[nodiscard]] VerbResult run_verb_stats(const Context& context);
[[nodiscard]] VerbResult run_verb_doctor(const Context& context);
[[nodiscard]] VerbResult run_verb_wait(const Context& context);
[[nodiscard]] VerbResult run_verb_rm(const Context& context);
[[nodiscard]] VerbResult run_verb_prune(const Context& context);
[[nodiscard]] VerbResult run_verb_image_verify(const Context& context);
[[nodiscard]] VerbResult run_verb_image_inspect(const Context& context);
[[nodiscard]] VerbResult run_verb_image_import(const Context& context);
[[nodiscard]] VerbResult run_verb_gpu_list(const Context& context);
[[nodiscard]] VerbResult run_verb_gpu_reclaim(const Context& context);
[[nodiscard]] VerbResult run_verb_compose_check(const Context& context);
[[nodiscard]] VerbResult run_verb_config_show(const Context& context);
[[nodiscard]] VerbResult run_verb_completion(const Context& context);

[[nodiscard]] constexpr int to_int(ExitCode code) noexcept {
    return static_cast<int>(code);
}

/// Results go to stdout. A reader that went away is an error with sys_errno EPIPE, about which
/// nothing needs to be said.
[[nodiscard]] Result<void> print_out(std::string_view text);
/// Words for people, to stderr; failures are of no use to anybody there.
void print_err(std::string_view text) noexcept;
/// "host_runner: MESSAGE (HINT)"
void print_error(const Error& error) noexcept;

/// The registry of this user's state folder.
[[nodiscard]] Result<instance::Registry> open_registry();

/// All instances; unreadable ones are named on stderr and left out.
[[nodiscard]] Result<std::vector<instance::Instance>>
list_instances(const instance::Registry& registry);

/// The instance that the user named, which must run.
/// @errors as Registry::find(); wrong_state: it does not run
[[nodiscard]] Result<instance::Instance> find_running(const instance::Registry& registry,
                                                      const std::string& reference);

/// "3f2a1b0c9d8e" or "3f2a1b0c9d8e (web)"
[[nodiscard]] std::string label(const instance::Record& record);

/// What people would type to name it.
[[nodiscard]] const std::string& short_reference(const instance::Record& record);

} // namespace host_runner::cli

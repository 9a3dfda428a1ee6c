// SPDX-License-Identifier: Apache-2.0
#include "host_runner/cli/main.hpp"

#include <array>
#include <cerrno>
#include <exception>
#include <utility>

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <fmt/format.h>

#include "host_runner/base/log.hpp"
#include "host_runner/config/documents.hpp"
#include "verbs.hpp"
#include "version.hpp"

namespace host_runner::cli {

namespace {

constexpr std::array<std::pair<std::string_view, VerbResult (*)(const Context&)>, 22> functions{{
    {"run", run_verb_run},
    {"list", run_verb_list},
    {"stop", run_verb_stop},
    {"logs", run_verb_logs},
    {"console", run_verb_console},
    {"exec", run_verb_exec},
    {"invoke", run_verb_invoke},
    {"run-wasm", run_verb_run_wasm},
    {"inspect", run_verb_inspect},
    {"stats", run_verb_stats},
    {"doctor", run_verb_doctor},
    {"wait", run_verb_wait},
    {"rm", run_verb_rm},
    {"prune", run_verb_prune},
    {"image verify", run_verb_image_verify},
    {"image inspect", run_verb_image_inspect},
    {"image import", run_verb_image_import},
    {"gpu list", run_verb_gpu_list},
    {"gpu reclaim", run_verb_gpu_reclaim},
    {"compose check", run_verb_compose_check},
    {"config show", run_verb_config_show},
    {"completion", run_verb_completion},
}};

VerbResult call(const Context& context) {
    for (const auto& [name, function] : functions)
        if (name == context.invocation.verb->name)
            return function(context);
    return fail(ErrorCode::internal,
                fmt::format("Verb {} has no function", context.invocation.verb->name),
                "report this as a bug");
}

/// A closed stdin, stdout or stderr would give its number to the next file that is opened, and
/// what is printed would end up there.
void open_standard_descriptors() noexcept {
    for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO})
        if (::fcntl(fd, F_GETFD) < 0 && errno == EBADF)
            static_cast<void>(::open("/dev/null", O_RDWR));
}

std::vector<std::string> names_of_variables() {
    std::vector<std::string> names;
    for (char** entry = environ; *entry != nullptr; ++entry) {
        const std::string_view text = *entry;
        names.emplace_back(text.substr(0, text.find('=')));
    }
    return names;
}

VerbResult run(const std::vector<std::string>& arguments) {
    HR_TRY(const auto invocation, parse_command_line(arguments));
    if (invocation.help) {
        HR_CHECK(print_out(invocation.verb == nullptr ? config::format_help()
                                                      : config::format_help(*invocation.verb)));
        return to_int(ExitCode::success);
    }
    if (invocation.version) {
        HR_CHECK(print_out(format_versions()));
        return to_int(ExitCode::success);
    }
    HR_TRY(const auto places,
           config::Places::load(config::config_files(config::process_environment),
                                config::process_environment));
    HR_TRY(const auto settings,
           config::Settings::settle(invocation.verb->name, places, invocation.options));
    HR_TRY(const auto level, settings.parsed("log-level", log::parse_level));
    log::set_up(level);
    for (const auto& name : config::unknown_variables(names_of_variables()))
        log::warn("{} is no setting and has no effect; host_runner config show lists them", name);
    return call({invocation, settings, places, arguments});
}

} // namespace

int run_command_line(int argc, const char* const* argv) noexcept {
    open_standard_descriptors();
    // A reader that goes away gives EPIPE where it is written; it must not end a VM.
    static_cast<void>(::signal(SIGPIPE, SIG_IGN));
    try {
        const auto code = run(std::vector<std::string>(argv + std::min(argc, 1), argv + argc));
        if (code)
            return *code;
        if (code.error().sys_errno != EPIPE)
            print_error(code.error());
        return to_int(exit_code_for(code.error().code));
    } catch (const std::exception& problem) {
        print_error({ErrorCode::internal, fmt::format("Unexpected error: {}", problem.what()),
                     "report this as a bug", 0});
        return to_int(ExitCode::failure);
    }
}

} // namespace host_runner::cli

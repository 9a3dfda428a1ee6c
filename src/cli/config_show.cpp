// SPDX-License-Identifier: Apache-2.0
#include "host_runner/cli/formatter.hpp"
#include "verbs.hpp"

namespace host_runner::cli {

VerbResult run_verb_config_show(const Context& context) {
    std::vector<config::Setting> settings;
    for (const auto& option : config::options()) {
        // Of the command line only what holds for every verb can have been given here.
        const auto given = context.invocation.options.find(option.name);
        const bool is_given = option.verb.empty() && given != context.invocation.options.end();
        settings.push_back(
            context.places.settle(option, is_given ? given->second : std::vector<std::string>{}));
    }
    HR_CHECK(print_out(make_formatter(context.settings.text("output"))->settings(settings)));
    return to_int(ExitCode::success);
}

} // namespace host_runner::cli

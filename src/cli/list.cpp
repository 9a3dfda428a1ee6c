// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "host_runner/cli/formatter.hpp"
#include "verbs.hpp"

namespace host_runner::cli {

VerbResult run_verb_list(const Context& context) {
    HR_TRY(const auto registry, open_registry());
    HR_TRY(auto all, list_instances(registry));
    if (!context.settings.is_on("all"))
        std::erase_if(all, [](const auto& one) { return one.end.has_value(); });
    HR_CHECK(print_out(make_formatter(context.settings.text("output"))->instances(all)));
    return to_int(ExitCode::success);
}

} // namespace host_runner::cli

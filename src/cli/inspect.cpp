// SPDX-License-Identifier: Apache-2.0
#include "host_runner/cli/formatter.hpp"
#include "verbs.hpp"

namespace host_runner::cli {

VerbResult run_verb_inspect(const Context& context) {
    HR_TRY(const auto registry, open_registry());
    HR_TRY(const auto found, registry.find(context.argument(0)));
    HR_CHECK(print_out(make_formatter(context.settings.text("output"))
                           ->instance(found, registry.paths(found.record.id).directory)));
    return to_int(ExitCode::success);
}

} // namespace host_runner::cli

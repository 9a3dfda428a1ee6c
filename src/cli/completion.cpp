// SPDX-License-Identifier: Apache-2.0
#include "host_runner/config/documents.hpp"
#include "verbs.hpp"

namespace host_runner::cli {

VerbResult run_verb_completion(const Context& context) {
    HR_TRY(const auto script, config::format_completion(context.argument(0)));
    HR_CHECK(print_out(script));
    return to_int(ExitCode::success);
}

} // namespace host_runner::cli

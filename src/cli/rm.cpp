// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "verbs.hpp"

namespace host_runner::cli {

VerbResult run_verb_rm(const Context& context) {
    HR_TRY(const auto registry, open_registry());
    // One that cannot be removed does not keep the others from it; the first failure is the end's.
    int code = to_int(ExitCode::success);
    for (const auto& reference : context.invocation.arguments.at(0)) {
        const auto removed = [&]() -> Result<std::string> {
            HR_TRY(const auto found, registry.find(reference));
            HR_CHECK(registry.remove(found));
            return label(found.record);
        }();
        if (removed) {
            HR_CHECK(print_out(fmt::format("{} removed\n", *removed)));
            continue;
        }
        print_error(removed.error());
        if (code == to_int(ExitCode::success))
            code = to_int(exit_code_for(removed.error().code));
    }
    return code;
}

} // namespace host_runner::cli

// SPDX-License-Identifier: Apache-2.0
#include <limits>

#include <fmt/format.h>

#include "verbs.hpp"

namespace host_runner::cli {

VerbResult run_verb_prune(const Context& context) {
    HR_TRY(const auto keep, context.settings.parsed("keep", [](std::string_view text) {
        return config::parse_count(text, 0, std::numeric_limits<std::uint32_t>::max());
    }));
    HR_TRY(const auto registry, open_registry());
    HR_TRY(const auto removed, registry.prune(keep));
    for (const auto& id : removed)
        HR_CHECK(print_out(fmt::format("{} removed\n", id)));
    if (removed.empty())
        print_err("Nothing to remove\n");
    return to_int(ExitCode::success);
}

} // namespace host_runner::cli

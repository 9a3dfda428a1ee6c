// SPDX-License-Identifier: Apache-2.0
#include "host_runner/base/log.hpp"
#include "host_runner/cli/formatter.hpp"
#include "host_runner/instance/control.hpp"
#include "verbs.hpp"

namespace host_runner::cli {

namespace {

/// A guest answers within milliseconds, one that is under heavy load somewhat later.
constexpr std::chrono::milliseconds services_deadline{3'000};

} // namespace

VerbResult run_verb_inspect(const Context& context) {
    HR_TRY(const auto registry, open_registry());
    HR_TRY(auto found, registry.find(context.argument(0)));
    // What the runner knows of them is from the guest's start; where it knows nothing, there is
    // nobody to ask yet.
    if (found.live && !found.live->services_json.empty()) {
        const auto socket = registry.paths(found.record.id).control_socket();
        if (auto services = instance::ask_services(socket, services_deadline))
            found.live->services_json = std::move(*services);
        else
            log::warn("The services are shown as they were when the guest last answered: {}",
                      services.error().describe());
    }
    HR_CHECK(print_out(make_formatter(context.settings.text("output"))
                           ->instance(found, registry.paths(found.record.id).directory)));
    return to_int(ExitCode::success);
}

} // namespace host_runner::cli

// SPDX-License-Identifier: Apache-2.0
#include "host_runner/instance/run.hpp"

#include <unistd.h>

#include <fmt/format.h>

#include "backend.hpp"
#include "detach.hpp"
#include "host_runner/base/files.hpp"
#include "host_runner/base/log.hpp"
#include "host_runner/base/service_manager.hpp"
#include "host_runner/cli/run_view.hpp"
#include "host_runner/cli/service_state.hpp"
#include "host_runner/cli/vm_options.hpp"
#include "host_runner/qemu/launch_plan.hpp"
#include "terminal.hpp"
#include "verbs.hpp"

namespace host_runner::cli {

namespace {

bool wants_json(const Context& context) {
    return context.settings.text("output") == "json";
}

/// A reader that went away must not end the VM: what cannot be written is dropped. The events are
/// in events.jsonl too.
Sinks standard_sinks() {
    return {[](std::string_view text) { static_cast<void>(print_out(text)); },
            [](std::string_view text) {
                print_err(text);
            }};
}

std::unique_ptr<RunView> make_view(const Context& context) {
    if (wants_json(context))
        return make_json_view(standard_sinks());
    if (::isatty(STDOUT_FILENO) == 1)
        return make_live_view(standard_sinks(), terminal_columns(STDOUT_FILENO));
    return make_plain_view(standard_sinks());
}

VerbResult show_dry_run(const Context& context, spec::VmSpec spec) {
    const auto format = context.settings.text("format");
    if (wants_json(context) && !format.empty())
        return fail(ErrorCode::invalid_argument,
                    fmt::format("--format {} and --output json exclude each other", format),
                    "--output json shows the plan, of which both forms are made");
    if (format == "libvirt-xml")
        spec.backend.libvirt = true; // some defaults are libvirt's
    HR_TRY(const auto dry, instance::dry_run(spec));
    if (wants_json(context)) {
        HR_CHECK(print_out(dry.plan_json + "\n"));
        return to_int(ExitCode::success);
    }
    for (const auto& warning : dry.warnings)
        print_err(fmt::format("warning: {}\n", warning));
    if (format == "libvirt-xml" || (format.empty() && spec.backend.libvirt)) {
        HR_TRY(const auto xml, domain_xml(spec, dry));
        HR_CHECK(print_out(xml));
    } else {
        HR_CHECK(print_out(qemu::shell_quote(dry.argv) + "\n"));
    }
    return to_int(ExitCode::success);
}

VerbResult supervise(const Context& context, const spec::VmSpec& spec,
                     const ServiceManager& manager, RunView& view) {
    HR_TRY(const auto level, context.settings.parsed("log-level", log::parse_level));
    const auto show = [&](const instance::RunEvent& event) {
        if (event.kind == instance::RunEvent::Kind::created)
            log::set_up(level, event.text); // from here on each line names the instance
        if (const auto state = service_state(event); !state.empty())
            manager.tell(state);
        view.on_event(event);
    };
    const auto backend = backend_of(spec);
    HR_TRY(const auto outcome, instance::run_instance(spec, show, {}, backend.get()));
    view.on_outcome(outcome);
    if (wants_json(context) && outcome.end.exit_code != ExitCode::success)
        print_err(
            fmt::format("host_runner: VM {} ended: {}\n", outcome.id, describe_end(outcome.end)));
    return to_int(outcome.end.exit_code);
}

} // namespace

VerbResult run_verb_run(const Context& context) {
    if (!context.settings.is_on("dry-run") && !context.settings.is_on("detach")) {
        const auto manager = ServiceManager::from_environment(); // the view may start a thread
        const auto view = make_view(context);
        auto result = make_vm_spec(context.settings).and_then([&](const spec::VmSpec& spec) {
            return supervise(context, spec, manager, *view);
        });
        if (!result)
            view->on_error(result.error());
        return result;
    }
    HR_TRY(auto spec, make_vm_spec(context.settings));
    if (context.settings.is_on("dry-run"))
        return show_dry_run(context, std::move(spec));
    return run_detached(context);
}

} // namespace host_runner::cli

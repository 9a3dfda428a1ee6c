// SPDX-License-Identifier: Apache-2.0
#include "host_runner/instance/doctor.hpp"

#include "backend.hpp"
#include "host_runner/cli/formatter.hpp"
#include "host_runner/cli/vm_options.hpp"
#include "verbs.hpp"

namespace host_runner::cli {

VerbResult run_verb_doctor(const Context& context) {
    config::Settings::CommandLine given;
    for (const auto& [name, values] : context.invocation.options)
        if (config::find_option("run", name) == config::find_option("doctor", name))
            given.emplace(name, values);
    HR_TRY(const auto settings, config::Settings::settle("run", context.places, given));
    HR_TRY(const auto spec, make_vm_spec(settings, NeedsImage::no));
    HR_TRY(const auto registry, open_registry());
    ForkExecLauncher launcher;
    auto edges = instance::real_host(launcher);
    const auto backend = backend_of(spec);
    if (backend)
        edges.ask_libvirt = [&] {
            return backend->connect(spec.tee);
        };
    const auto findings =
        spec.image_path.empty()
            ? instance::examine(instance::needs_of(spec, nullptr, spec.egress.value_or(false),
                                                   registry.instances_directory()),
                                edges)
            : instance::examine_run(spec, registry, edges);
    HR_CHECK(print_out(make_formatter(context.settings.text("output"))->findings(findings)));
    return to_int(instance::has_failed(findings) ? ExitCode::failure : ExitCode::success);
}

} // namespace host_runner::cli

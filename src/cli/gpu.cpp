// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <optional>

#include <fmt/format.h>

#include "host_runner/cli/formatter.hpp"
#include "host_runner/host/device_binder.hpp"
#include "host_runner/host/gpu.hpp"
#include "host_runner/instance/held_devices.hpp"
#include "verbs.hpp"

namespace host_runner::cli {

namespace {

bool has(const std::vector<spec::PciAddress>& devices, const spec::PciAddress& address) {
    return std::find(devices.begin(), devices.end(), address) != devices.end();
}

std::string describe(const instance::ReclaimedDevice& reclaimed) {
    const auto& device = reclaimed.device;
    const auto end = !device.note.empty()    ? device.note
                     : device.driver.empty() ? std::string("given back, without a driver as before")
                                             : fmt::format("given back to {}", device.driver);
    return fmt::format("{}: {} (instance {})\n", spec::format_pci_address(device.address), end,
                       reclaimed.name.empty()
                           ? reclaimed.id
                           : fmt::format("{}, {}", reclaimed.id, reclaimed.name));
}

} // namespace

VerbResult run_verb_gpu_list(const Context& context) {
    HR_TRY(auto gpus, host::list_gpus({}, print_error));
    HR_TRY(const auto registry, open_registry());
    HR_TRY(const auto instances, list_instances(registry));
    HR_TRY(const auto held, instance::find_held_devices(registry, {}, print_error));
    std::vector<GpuRow> rows;
    bool is_any_left_behind = false;
    for (auto& gpu : gpus) {
        auto& row = rows.emplace_back();
        const auto address = gpu.pci.address;
        row.gpu = std::move(gpu);
        for (const auto& one : instances)
            if (!one.end && has(one.record.gpus, address)) {
                row.instance_id = one.record.id;
                row.instance_name = one.record.name;
            }
        for (const auto& one : held)
            if (row.instance_id.empty() && has(one.devices, address)) {
                row.instance_id = one.id;
                row.instance_name = one.name;
                row.is_left_behind = true;
                is_any_left_behind = true;
            }
    }
    HR_CHECK(print_out(make_formatter(context.settings.text("output"))->gpus(rows)));
    if (is_any_left_behind)
        print_err("host_runner gpu reclaim gives back to the host what killed instances hold\n");
    return to_int(ExitCode::success);
}

VerbResult run_verb_gpu_reclaim(const Context&) {
    HR_TRY(const auto registry, open_registry());
    host::KernelSysfs kernel;
    std::optional<Error> first_problem;
    bool is_any = false;
    const auto on_problem = [&](const Error& problem) {
        print_error(problem);
        if (!first_problem)
            first_problem = problem;
    };
    const auto on_device = [&](const instance::ReclaimedDevice& reclaimed) {
        is_any = true;
        if (reclaimed.device.problem)
            on_problem(*reclaimed.device.problem);
        else
            static_cast<void>(print_out(describe(reclaimed)));
    };
    HR_CHECK(instance::reclaim_devices(registry, kernel, {}, on_device, on_problem));
    if (first_problem)
        return to_int(exit_code_for(first_problem->code));
    if (!is_any)
        print_err("Nothing to give back\n");
    return to_int(ExitCode::success);
}

} // namespace host_runner::cli

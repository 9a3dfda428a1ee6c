// SPDX-License-Identifier: Apache-2.0
#include "host_runner/base/log.hpp"
#include "host_runner/cli/formatter.hpp"
#include "verbs.hpp"

namespace host_runner::cli {

namespace {

Result<StatsRow> measure(const instance::Instance& one) {
    StatsRow row;
    row.id = one.record.id;
    row.name = one.record.name;
    row.uptime_ms = one.live->uptime_ms;
    row.qemu_pid = one.live->qemu_pid;
    row.runner_pid = one.live->runner_pid;
    HR_TRY(row.qemu, read_process_usage(row.qemu_pid));
    HR_TRY(row.runner, read_process_usage(row.runner_pid));
    return row;
}

bool has_qemu(const instance::Instance& one) {
    return one.live && one.live->qemu_pid != 0;
}

} // namespace

VerbResult run_verb_stats(const Context& context) {
    HR_TRY(const auto registry, open_registry());
    std::vector<StatsRow> rows;
    if (const auto reference = context.argument(0); !reference.empty()) {
        HR_TRY(const auto one, find_running(registry, reference));
        if (!has_qemu(one))
            return fail(ErrorCode::wrong_state,
                        label(one.record) + " has no QEMU at the moment or its runner does not "
                                            "answer",
                        "try again in a moment");
        HR_TRY(auto row, measure(one));
        rows.push_back(std::move(row));
    } else {
        HR_TRY(const auto all, list_instances(registry));
        for (const auto& one : all) {
            if (!has_qemu(one))
                continue;
            // One that ends while we look is no failure.
            if (auto row = measure(one))
                rows.push_back(std::move(*row));
            else
                log::warn("{}: {}", label(one.record), row.error().describe());
        }
    }
    HR_CHECK(print_out(make_formatter(context.settings.text("output"))->stats(rows)));
    return to_int(ExitCode::success);
}

} // namespace host_runner::cli

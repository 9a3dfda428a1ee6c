// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The path of one run: VmSpec -> image, host facts, plan -> instance folder -> QEMU -> the end.
///
///     auto outcome = run_instance(spec, options, observer);   // blocks
///
/// Call from the main thread (QEMU's death signal is tied to the thread that starts it) and before
/// any other thread exists (signals are blocked here and inherited).

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "host_runner/base/error.hpp"
#include "host_runner/base/exit_code.hpp"
#include "host_runner/host/device_binder.hpp"
#include "host_runner/host/host_root.hpp"
#include "host_runner/instance/backend.hpp"
#include "host_runner/instance/placement.hpp"
#include "host_runner/instance/record.hpp"
#include "host_runner/qemu/launch_plan.hpp"
#include "host_runner/spec/vm_spec.hpp"

namespace host_runner::instance {

/// Something worth showing while a run goes on.
struct RunEvent {
    enum class Kind {
        warning,    ///< e.g. memory overcommitted, --tee none
        notice,     ///< e.g. which accelerator and why, no services, the log's name
        created,    ///< text = the instance id; the folder and lock exist
        port,       ///< text = "tcp:127.0.0.1:8080:80", host port settled
        started,    ///< QEMU runs; text = its pid
        progress,   ///< text = boot.progress payload or another step
        boot_error, ///< text = the guest's words; not necessarily the end
        ready,      ///< The guest reported `done`
        stop_step,  ///< A step of the stop ladder begins: text, limit
        restart,    ///< text = why and when
        ended,      ///< text = the reason
    };
    Kind kind = Kind::notice;
    std::string text;
    std::chrono::milliseconds elapsed{0}; ///< Since run_instance() began.
    std::chrono::milliseconds limit{0};   ///< stop_step: how long it may take.
};
[[nodiscard]] std::string_view to_string(RunEvent::Kind kind) noexcept;

using RunObserver = std::function<void(const RunEvent&)>;

struct RunOutcome {
    std::string id;
    End end;
};

/// Where devices are looked for and who binds them: the machine's, or a test's.
struct DeviceEdge {
    host::HostRoot root;
    host::SysfsWriter* kernel = nullptr; ///< nullptr: the real one.
};

/// Prepares, starts and supervises one VM until it has ended and everything it took is given back.
/// An error means that nothing was started; an end of any kind is an outcome.
/// @param backend who starts QEMU; nullptr: this process. Borrowed
/// @errors by the first thing that failed; the instance folder is gone again then
[[nodiscard]] Result<RunOutcome> run_instance(const spec::VmSpec& spec, const RunObserver& observer,
                                              const DeviceEdge& devices = {},
                                              Backend* backend = nullptr);

/// What run_instance() would do. Takes and leaves nothing: no folder, port, CID, device, cache
/// entry or lock; host port 0 stays 0 in `plan_json` and is shown as 0 in argv.
struct DryRun {
    std::vector<std::string> argv;
    std::string plan_json; ///< The launch plan's fields, the app-compose hash, warnings.
    std::vector<std::string> warnings;
    qemu::LaunchPlan plan; ///< For another form than argv.
    Placement placement;
    std::string qemu_path;
};
[[nodiscard]] Result<DryRun> dry_run(const spec::VmSpec& spec, const DeviceEdge& devices = {});

} // namespace host_runner::instance

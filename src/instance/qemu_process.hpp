// SPDX-License-Identifier: Apache-2.0
#pragma once

/// A VM whose QEMU is a child of this process: fork and exec, pidfd, QMP.

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "host_runner/base/event_loop.hpp"
#include "host_runner/base/process.hpp"
#include "host_runner/instance/machine.hpp"
#include "host_runner/instance/placement.hpp"

namespace host_runner::instance {

struct QemuProcessConfig {
    std::string qmp_socket;
    int stdout_fd = -1; ///< Borrowed.
    int stderr_fd = -1;
    const std::optional<Pinning>* pinning = nullptr; ///< Borrowed.
    /// For the last QMP events after QEMU has ended.
    std::chrono::milliseconds last_events{500};
};

/// Returns once exec succeeded. To be called from the main thread: QEMU's death signal is tied to
/// the thread that starts it. @errors those of the launcher
[[nodiscard]] Result<std::unique_ptr<Machine>>
start_qemu_process(EventLoop& loop, ProcessLauncher& launcher, const QemuProcessConfig& config,
                   Launch launch, MachineHooks hooks);

} // namespace host_runner::instance

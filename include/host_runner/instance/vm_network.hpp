// SPDX-License-Identifier: Apache-2.0
#pragma once

/// What a running VM's network needs on the host beside QEMU: the program that makes its user
/// network, or the tap in its bridge.
///
///     VmNetwork network(loop, launcher, on_lost);
///     HR_CHECK(network.begin(plan, backend, programs, host_services));  // goes on by itself
///     HR_TRY(auto fd, network.finish());                                // for QEMU
///
/// On the loop's thread, which must be the main thread.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "host_runner/base/error.hpp"
#include "host_runner/base/event_loop.hpp"
#include "host_runner/base/process.hpp"
#include "host_runner/base/unique_fd.hpp"
#include "host_runner/host/tap.hpp"
#include "host_runner/qemu/launch_plan.hpp"
#include "host_runner/usernet/choice.hpp"
#include "host_runner/usernet/network_process.hpp"

namespace host_runner::instance {

class VmNetwork {
public:
    /// @param on_lost the program has ended though the VM runs: in what words
    VmNetwork(EventLoop& loop, ProcessLauncher& launcher, host::TapMaker& taps,
              std::function<void(std::string)> on_lost);
    VmNetwork(const VmNetwork&) = delete;
    VmNetwork& operator=(const VmNetwork&) = delete;
    /// Ends the program and reaps it.
    ~VmNetwork();

    /// Starts what `backend` needs for the next QEMU; what the last one had is ended first.
    /// @param host_services ports of 127.0.0.1
    /// @errors of the launcher; of the tap
    [[nodiscard]] Result<void> begin(const qemu::LaunchPlan& plan, usernet::Backend backend,
                                     const usernet::Programs& programs,
                                     const std::vector<std::uint16_t>& host_services);

    /// The descriptor for QEMU; none where QEMU makes its network itself.
    /// @errors already_exists: a host port was taken in the last moment; what else keeps the
    ///         program from working
    [[nodiscard]] Result<UniqueFd> finish();

    /// Ends the program; QEMU has ended.
    void end();

private:
    [[nodiscard]] Result<void> watch();
    void on_program_end();

    EventLoop& loop_;
    ProcessLauncher& launcher_;
    host::TapMaker& taps_;
    std::function<void(std::string)> on_lost_;
    std::unique_ptr<usernet::NetworkProcess> program_;
    UniqueFd tap_;
};

} // namespace host_runner::instance

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Owns one VM from its first QEMU process to its end: starts it, follows its boot, stops it,
/// starts it again by its policy, and says why it ended.
///
///     Supervisor vm(loop, launcher, std::move(config), std::move(hooks));
///     HR_CHECK(vm.start());
///     HR_CHECK(loop.run());   // hooks.on_end calls loop.stop()
///
/// Many may share a loop. Everything happens on the loop's thread, which must be the main thread:
/// QEMU's death signal is tied to the thread that starts it. Signals are the owner's; it passes
/// them on by request_stop() and hurry_stop().

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "host_runner/base/event_loop.hpp"
#include "host_runner/base/process.hpp"
#include "host_runner/instance/control.hpp"
#include "host_runner/instance/ending.hpp"
#include "host_runner/instance/logs.hpp"
#include "host_runner/instance/machine.hpp"
#include "host_runner/instance/placement.hpp"
#include "host_runner/instance/record.hpp"
#include "host_runner/instance/registry.hpp"
#include "host_runner/instance/run.hpp"
#include "host_runner/net/http_client.hpp"
#include "host_runner/protocol/host_api.hpp"

namespace host_runner::instance {

/// Limits of time that tests shorten.
struct SupervisorTimes {
    std::chrono::milliseconds log_check{5'000};
    /// For the last QMP events after QEMU has ended.
    std::chrono::milliseconds last_events{500};
    std::chrono::milliseconds guest_call{5'000};
    /// `ready` waits no longer for the guest's account of itself.
    std::chrono::milliseconds ready_call{2'000};
    /// Between two tries to go on after the host's disk was full.
    std::chrono::milliseconds resume_try{5'000};
    RestartBackOff::Times restart;
};

struct SupervisorConfig {
    std::string id;
    InstancePaths paths{std::string()};
    std::uint64_t memory_bytes = 0;
    net::Connector guest_api; ///< Empty: the guest has none that we can reach.
    bool has_services = true; ///< The guest API knows `Services` (our own image).
    /// The guest tells its progress, so that silence means it has not come up.
    bool reports_progress = true;
    spec::RestartRule restart;
    std::chrono::milliseconds stop_timeout{0}; ///< 0: scaled with memory.
    std::optional<Pinning> pinning;            ///< nullopt: QEMU runs where the runner does.
    QemuLogs logs;
    MachineStarter* starter = nullptr;  ///< nullptr: this process starts QEMU. Borrowed.
    EventLoop::Clock::time_point began; ///< What elapsed times count from.
    SupervisorTimes times;
};

/// Why hooks.next_launch is called.
enum class LaunchCause {
    first,
    restart,   ///< The policy starts the VM again: same ports, same CID.
    port_lost, ///< Somebody took an automatically chosen host port in the last moment.
};

struct SupervisorHooks {
    /// Makes everything ready for a start; short blocking work is fine. For `port_lost` an error
    /// means that no other port may be taken.
    std::function<Result<Launch>(LaunchCause)> next_launch;
    RunObserver on_event;
    /// Once, when QEMU has been reaped and will not be started again. The supervisor must not be
    /// destroyed inside; stop the loop or post it.
    std::function<void(const End&)> on_end;
};

class Supervisor {
public:
    Supervisor(EventLoop& loop, ProcessLauncher& launcher, SupervisorConfig config,
               SupervisorHooks hooks);
    Supervisor(const Supervisor&) = delete;
    Supervisor& operator=(const Supervisor&) = delete;
    /// A QEMU that still runs is killed and reaped.
    ~Supervisor();

    /// Starts QEMU. @errors of hooks.next_launch and of the launcher; then nothing runs, and
    /// on_end is not called
    [[nodiscard]] Result<void> start();

    /// A message of the guest's host API.
    void on_guest_event(const protocol::Event& event);

    /// Begins the stop ladder; while it runs, `force` goes straight to SIGKILL and a `timeout` can
    /// only bring SIGKILL forward. `on_step` gets the step that runs and every later one; at the
    /// end one more with `done`.
    void request_stop(const StopRequest& request,
                      std::function<void(const StopStep&)> on_step = {});
    /// A second signal: the next step begins now. Begins the ladder when none runs.
    void hurry_stop();

    [[nodiscard]] LiveStatus status() const;
    /// Asks the guest how its services are. `done` gets what it sent, on the loop; at once with an
    /// error where there is nobody to ask.
    /// @errors of `done`: unavailable: there is nobody to ask, or no answer; corrupt_data
    void ask_services(std::function<void(const Result<std::string>& services_json)> done);

private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

} // namespace host_runner::instance

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// One started VM, whoever started it: this process, by fork and exec, or another backend such as
/// libvirt. The supervisor knows no more of a VM than this.
///
///     HR_TRY(auto machine, starter.start(loop, std::move(launch), {.on_end = ...}));
///     machine->take_step(StopStepKind::terminate, limit, on_failure);   // on_end follows
///
/// Everything is called on the loop's thread, the hooks never inside a call of the machine.

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <sys/types.h>

#include "host_runner/base/error.hpp"
#include "host_runner/base/event_loop.hpp"
#include "host_runner/base/process.hpp"
#include "host_runner/base/unique_fd.hpp"
#include "host_runner/instance/stop_ladder.hpp"
#include "host_runner/qemu/qmp_client.hpp"

namespace host_runner::instance {

/// What one start of QEMU needs.
struct Launch {
    std::vector<std::string> argv;              ///< Empty with another backend.
    std::map<int, UniqueFd> pass_fds;           ///< Number in QEMU -> ours, closed once QEMU runs.
    std::optional<ProcessSpec::User> user = {}; ///< nullopt: as the runner itself.
    bool unlimited_locked_memory = false;       ///< Only with `user`.
    int cgroup_fd = -1;                         ///< As ProcessSpec::cgroup_fd; borrowed.
    std::string description;                    ///< For the backend, e.g. libvirt's domain XML.
};

/// How a VM ended, as far as its backend saw it.
struct MachineEnd {
    ExitStatus exit;
    /// Where QEMU is nobody's child of ours and its exit status is not known: the backend's words
    /// in its place.
    std::string exit_words;
    /// The cause that QEMU named.
    std::optional<qemu::ShutdownReason> shutdown;
    bool panicked = false;
    std::string panic_message;
    std::string error_text; ///< QEMU's messages, where they do not go to its stderr log.
};

struct MachineHooks {
    /// QEMU has got through its command line. Once at most.
    std::function<void()> on_answer;
    /// After on_answer, when everything about the start is done; pid() is known by then, if ever.
    std::function<void()> on_started;
    /// The words of QMP's query-status, e.g. "running", "paused".
    std::function<void(const std::string& status)> on_status;
    /// A disk could not be accessed. `no_space`: the host's disk is full and the VM is paused.
    std::function<void(bool no_space, const std::string& reason)> on_disk_error;
    std::function<void(const std::string& text)> on_warning;
    /// Once. The machine may be destroyed inside.
    std::function<void(const MachineEnd&)> on_end;
};

class Machine {
public:
    Machine() = default;
    Machine(const Machine&) = delete;
    Machine& operator=(const Machine&) = delete;
    /// Kills what still runs, and waits for its end. No hook is called any more.
    virtual ~Machine() = default;

    /// Of QEMU; 0: not known.
    [[nodiscard]] virtual pid_t pid() const = 0;
    /// False as soon as QEMU is known to have ended; on_end may still be to come.
    [[nodiscard]] virtual bool runs() const = 0;
    /// There is somebody to whom resume() and the gentle steps can be said.
    [[nodiscard]] virtual bool is_connected() const = 0;

    using Failure = std::function<void(const Error&)>;
    /// Takes a step of the stop ladder, other than guest_shutdown. @param failed at most once: the
    /// step did not get through, and nothing will come of it
    virtual void take_step(StopStepKind kind, std::chrono::milliseconds limit, Failure failed) = 0;
    /// Lets a VM go on that was paused by a full disk.
    virtual void resume(std::function<void(const Result<void>&)> done) = 0;
};

class MachineStarter {
public:
    MachineStarter() = default;
    MachineStarter(const MachineStarter&) = delete;
    MachineStarter& operator=(const MachineStarter&) = delete;
    virtual ~MachineStarter() = default;
    /// @errors nothing was started; a start that fails later is an end without on_answer
    [[nodiscard]] virtual Result<std::unique_ptr<Machine>> start(EventLoop& loop, Launch launch,
                                                                 MachineHooks hooks) = 0;
};

} // namespace host_runner::instance

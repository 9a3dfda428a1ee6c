// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Starts other programs, without a shell.

#include <chrono>
#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <sys/types.h>

#include "host_runner/base/error.hpp"
#include "host_runner/base/unique_fd.hpp"

namespace host_runner {

/// Everything about a child that must be settled before the fork.
struct ProcessSpec {
    std::vector<std::string> argv; ///< argv[0] is a path or is looked up in PATH.
    /// The whole environment ("NAME=value"); nullopt passes ours on.
    std::optional<std::vector<std::string>> environment;
    std::string working_directory; ///< Empty: ours.
    int stdin_fd = -1;             ///< -1: /dev/null. Borrowed, like all descriptors here.
    int stdout_fd = -1;            ///< -1: /dev/null.
    int stderr_fd = -1;            ///< -1: /dev/null.
    /// child descriptor number -> our descriptor. All others are closed in the child.
    std::map<int, int> pass_fds;
    bool new_process_group = true;
    bool new_session = false;    ///< setsid(); implies a new process group.
    bool die_with_parent = true; ///< SIGKILL when the thread that launches it ends: so launch
                                 ///< from the main thread.
    bool no_new_privileges = true;
    struct User {
        uid_t uid = 0;
        gid_t gid = 0;
        std::vector<gid_t> groups;
    };
    std::optional<User> user; ///< nullopt: stay who we are.
    /// `cgroup.procs` of the cgroup that the child enters, before it changes its user; -1: stays in
    /// ours.
    int cgroup_fd = -1;
    /// May lock all memory, as root's processes may. Takes root.
    bool unlimited_locked_memory = false;
};

struct ChildProcess {
    pid_t pid = -1;
    UniqueFd pidfd; ///< Readable when the child has ended. The caller reaps it: reap().
};

/// How a child ended.
struct ExitStatus {
    bool exited = false; ///< True: by exit(code). False: by signal.
    int code = 0;
    int signal = 0;
    /// "exit code 1" or "signal 9 (Killed)"
    [[nodiscard]] std::string describe() const;
};

/// The program as a shell finds it: a path with '/' as it is, else in the folders of PATH.
/// @errors not_found; of a path: permission_denied and what else access(2) says
[[nodiscard]] Result<std::string> find_program(const std::string& name);

/// The edge behind which tests put a fake.
class ProcessLauncher {
public:
    virtual ~ProcessLauncher() = default;
    /// Starts the program and returns once exec succeeded in the child.
    /// @errors not_found: no such program; permission_denied; the errno of the step that failed in
    ///         the child, with that step named
    [[nodiscard]] virtual Result<ChildProcess> launch(const ProcessSpec& spec) = 0;
};

/// fork and exec. In the child only async-signal-safe calls, in the order design.md section 4 asks
/// for: process group, groups and ids, the death signal (changing ids clears it), a check that the
/// parent is still there and that the death signal is set, no_new_privs, descriptors, exec.
class ForkExecLauncher final : public ProcessLauncher {
public:
    [[nodiscard]] Result<ChildProcess> launch(const ProcessSpec& spec) override;
};

/// Waits for the end of `child` (blocking when `pidfd` is not readable) and removes the zombie.
[[nodiscard]] Result<ExitStatus> reap(const ChildProcess& child);

/// Waits at most `timeout` for the child's end, then reaps it.
/// @errors timeout: it still runs
[[nodiscard]] Result<ExitStatus> wait_for_exit(const ChildProcess& child,
                                               std::chrono::milliseconds timeout);

struct CapturedOutput {
    ExitStatus status;
    std::string out;
    std::string err;
};

/// Runs a short program to its end with its output in memory; kills it at the deadline or when it
/// prints more than `max_output_bytes` on either stream. stdout_fd and stderr_fd of `spec` are not
/// used. A non-zero exit is not an error here.
/// @errors as launch(); timeout; resource_exhausted: too much output
[[nodiscard]] Result<CapturedOutput> run_captured(ProcessLauncher& launcher, ProcessSpec spec,
                                                  std::chrono::milliseconds timeout,
                                                  std::size_t max_output_bytes = 1 << 20);

/// pid + start time (clock ticks since boot, /proc/PID/stat field 22) + boot id: names one process
/// for ever, whereas a pid alone is used again.
struct ProcessIdentity {
    pid_t pid = 0;
    unsigned long long start_ticks = 0;
    std::string boot_id;
};

/// @errors not_found: no such process
[[nodiscard]] Result<ProcessIdentity> identify_process(pid_t pid);

/// True while exactly that process exists (a zombie counts as ended).
[[nodiscard]] bool is_alive(const ProcessIdentity& identity);

/// /proc/sys/kernel/random/boot_id without its newline.
[[nodiscard]] Result<std::string> current_boot_id();

} // namespace host_runner

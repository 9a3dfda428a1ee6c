// SPDX-License-Identifier: Apache-2.0
#include "host_runner/agent/init.hpp"

#include <cerrno>
#include <csignal>

#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fmt/format.h>

#include "host_runner/agent/mounts.hpp"
#include "host_runner/base/files.hpp"
#include "host_runner/base/units.hpp"

namespace host_runner::agent {

namespace {

void say(std::string_view text) {
    static_cast<void>(write_all(STDOUT_FILENO, fmt::format("guest_agent: {}\n", text)));
}

ExitStatus to_exit_status(int status) noexcept {
    ExitStatus result;
    result.exited = WIFEXITED(status);
    if (result.exited)
        result.code = WEXITSTATUS(status);
    else
        result.signal = WTERMSIG(status);
    return result;
}

/// Reaps whatever ends until the agent does. Signals that ask for the end go to the agent.
ExitStatus wait_for_agent(pid_t agent, const sigset_t& signals) {
    for (;;) {
        int status = 0;
        for (pid_t pid = 0; (pid = ::waitpid(-1, &status, WNOHANG)) > 0;)
            if (pid == agent)
                return to_exit_status(status);
        int signal = 0;
        if (::sigwait(&signals, &signal) == 0 && signal != SIGCHLD)
            ::kill(agent, SIGTERM);
    }
}

/// Nothing but us may write to the disks any more.
void kill_everything() {
    ::kill(-1, SIGKILL);
    while (::waitpid(-1, nullptr, 0) > 0 || errno == EINTR) {
    }
}

[[noreturn]] void end_machine(MachineEnd end) {
    kill_everything();
    ::sync();
    SystemMounter mounter;
    if (const auto mountinfo = read_file("/proc/self/mountinfo", mib))
        for (const auto& problem : unmount_disks(mounter, parse_mountinfo(*mountinfo)))
            say(problem);
    ::sync();
    ::reboot(end == MachineEnd::power_off ? RB_POWER_OFF : RB_AUTOBOOT);
    // Only without the permission to, which PID 1 has; and PID 1 must not end.
    say("The machine cannot be ended");
    for (;;)
        ::pause();
}

} // namespace

MachineEnd machine_end(const ExitStatus& agent) noexcept {
    return agent.exited && agent.code == 0 ? MachineEnd::power_off : MachineEnd::reset;
}

void run_init(const std::string& program) {
    // busybox's halt and poweroff send SIGUSR1 and SIGUSR2 to PID 1, others SIGTERM or SIGPWR;
    // Ctrl- Alt-Del is SIGINT. Blocked, so that none is ignored as PID 1's are by default.
    sigset_t signals;
    sigemptyset(&signals);
    for (const int signal : {SIGCHLD, SIGTERM, SIGINT, SIGPWR, SIGUSR1, SIGUSR2})
        sigaddset(&signals, signal);
    ::sigprocmask(SIG_BLOCK, &signals, nullptr);
    ::reboot(RB_DISABLE_CAD);
    ::umask(022);

    SystemMounter mounter;
    if (auto writable = make_root_writable(mounter); !writable)
        say(fmt::format("The root file system stays read-only, so services can only mount on "
                        "folders that the image has: {}",
                        writable.error().describe()));
    if (auto mounted = mount_system(mounter); !mounted) {
        say(mounted.error().describe());
        end_machine(MachineEnd::reset);
    }

    ForkExecLauncher launcher;
    ProcessSpec spec;
    spec.argv = {program, "boot"};
    spec.stdin_fd = STDIN_FILENO;
    spec.stdout_fd = STDOUT_FILENO;
    spec.stderr_fd = STDERR_FILENO;
    spec.no_new_privileges = false; // each service gets it; a shell of the dev flavour does not
    const auto agent = launcher.launch(spec);
    if (!agent) {
        say(agent.error().describe());
        end_machine(MachineEnd::reset);
    }
    const auto status = wait_for_agent(agent->pid, signals);
    const auto end = machine_end(status);
    say(end == MachineEnd::power_off
            ? std::string("Powering off")
            : fmt::format("The agent ended with {}: resetting the machine", status.describe()));
    end_machine(end);
}

} // namespace host_runner::agent

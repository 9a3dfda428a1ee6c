// SPDX-License-Identifier: Apache-2.0
#include "host_runner/base/process.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <climits>
#include <csignal>
#include <cstdlib>
#include <cstring>

#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fmt/format.h>

#include "host_runner/base/files.hpp"

namespace host_runner {

namespace {

/// What the child does, in its order; a failed step travels back through a pipe.
enum class ChildStep : int {
    process_group,
    session,
    cgroup,
    locked_memory,
    groups,
    gid,
    uid,
    death_signal,
    parent_gone,
    no_new_privileges,
    working_directory,
    descriptors,
    exec,
};

const char* step_text(ChildStep step) noexcept {
    switch (step) {
    case ChildStep::process_group:
        return "cannot make a process group";
    case ChildStep::session:
        return "cannot make a session";
    case ChildStep::cgroup:
        return "cannot enter the cgroup";
    case ChildStep::locked_memory:
        return "cannot lift the limit of locked memory";
    case ChildStep::groups:
        return "cannot set the groups";
    case ChildStep::gid:
        return "cannot set the group id";
    case ChildStep::uid:
        return "cannot set the user id";
    case ChildStep::death_signal:
        return "cannot set the parent-death signal";
    case ChildStep::parent_gone:
        return "the parent ended meanwhile";
    case ChildStep::no_new_privileges:
        return "cannot set no_new_privs";
    case ChildStep::working_directory:
        return "cannot enter the working directory";
    case ChildStep::descriptors:
        return "cannot arrange the descriptors";
    case ChildStep::exec:
        return "cannot execute";
    }
    return "failed";
}

struct ChildFailure {
    ChildStep step;
    int saved_errno;
};

/// Everything the child needs, prepared before the fork: it must not allocate.
struct Prepared {
    std::string program;
    std::vector<char*> argv;
    std::vector<char*> envp;
    std::vector<std::pair<int, int>> descriptors; ///< (child number, ours), child number ascending
    int first_free_fd = 0; ///< Above every descriptor named in `descriptors`.
    pid_t parent = 0;
};

std::vector<char*> pointers_to(const std::vector<std::string>& strings) {
    std::vector<char*> pointers;
    pointers.reserve(strings.size() + 1);
    for (const auto& string : strings)
        pointers.push_back(const_cast<char*>(string.c_str())); // NOLINT: exec's historic type
    pointers.push_back(nullptr);
    return pointers;
}

[[noreturn]] void fail_child(int report_fd, ChildStep step, int saved_errno) noexcept {
    const ChildFailure failure{step, saved_errno};
    static_cast<void>(!::write(report_fd, &failure, sizeof failure));
    ::_exit(127);
}

/// Puts the descriptors at their numbers: first all out of the way, then each into place.
bool arrange_descriptors(Prepared& prepared, int& report_fd) noexcept {
    int next = prepared.first_free_fd;
    report_fd = ::fcntl(report_fd, F_DUPFD_CLOEXEC, next);
    if (report_fd < 0)
        return false;
    for (auto& [child_fd, our_fd] : prepared.descriptors) {
        our_fd = ::fcntl(our_fd, F_DUPFD_CLOEXEC, next);
        if (our_fd < 0)
            return false;
    }
    for (const auto& [child_fd, our_fd] : prepared.descriptors)
        if (::dup2(our_fd, child_fd) < 0) // dup2 clears close-on-exec
            return false;
    // Everything else goes at exec, whoever opened it.
    int from = 0;
    for (const auto& [child_fd, our_fd] : prepared.descriptors) {
        if (child_fd > from &&
            ::syscall(SYS_close_range, from, child_fd - 1, CLOSE_RANGE_CLOEXEC) != 0)
            return false;
        from = child_fd + 1;
    }
    return ::syscall(SYS_close_range, from, ~0U, CLOSE_RANGE_CLOEXEC) == 0;
}

[[noreturn]] void run_child(const ProcessSpec& spec, Prepared& prepared, int report_fd) noexcept {
    const auto check = [&](bool good, ChildStep step) {
        if (!good)
            fail_child(report_fd, step, errno);
    };
    if (spec.new_session)
        check(::setsid() >= 0, ChildStep::session);
    else if (spec.new_process_group)
        check(::setpgid(0, 0) == 0, ChildStep::process_group);
    if (spec.cgroup_fd >= 0)
        check(::write(spec.cgroup_fd, "0", 1) == 1, ChildStep::cgroup);
    if (spec.unlimited_locked_memory) {
        const rlimit no_limit{RLIM_INFINITY, RLIM_INFINITY};
        check(::setrlimit(RLIMIT_MEMLOCK, &no_limit) == 0, ChildStep::locked_memory);
    }
    if (spec.user) {
        check(::setgroups(spec.user->groups.size(), spec.user->groups.data()) == 0,
              ChildStep::groups);
        check(::setresgid(spec.user->gid, spec.user->gid, spec.user->gid) == 0, ChildStep::gid);
        check(::setresuid(spec.user->uid, spec.user->uid, spec.user->uid) == 0, ChildStep::uid);
    }
    if (spec.die_with_parent) {
        int is_set = 0;
        check(::prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && ::prctl(PR_GET_PDEATHSIG, &is_set) == 0 &&
                  is_set == SIGKILL,
              ChildStep::death_signal);
        // The parent may have ended before the signal was set; then nobody would ever send it.
        errno = ESRCH;
        check(::getppid() == prepared.parent, ChildStep::parent_gone);
    }
    if (spec.no_new_privileges)
        check(::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0, ChildStep::no_new_privileges);
    if (!spec.working_directory.empty())
        check(::chdir(spec.working_directory.c_str()) == 0, ChildStep::working_directory);
    check(arrange_descriptors(prepared, report_fd), ChildStep::descriptors);

    // A fresh program expects default signals and none blocked; ours are blocked for the signalfd.
    for (int signal = 1; signal < NSIG; ++signal)
        if (signal != SIGHUP) // stays ignored under nohup
            static_cast<void>(::signal(signal, SIG_DFL));
    sigset_t none;
    sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);

    ::execve(prepared.program.c_str(), prepared.argv.data(), prepared.envp.data());
    fail_child(report_fd, ChildStep::exec, errno);
}

Result<int> open_null() {
    const int fd = ::open("/dev/null", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return fail_errno("Cannot open /dev/null", errno);
    return fd;
}

} // namespace

Result<std::string> find_program(const std::string& name) {
    if (name.find('/') != std::string::npos) {
        if (::access(name.c_str(), X_OK) == 0)
            return name;
        return fail_errno(fmt::format("Cannot execute {}", name), errno);
    }
    const char* path = std::getenv("PATH"); // NOLINT(concurrency-mt-unsafe): nobody sets it
    std::string_view rest = path != nullptr ? path : "/usr/bin:/bin";
    while (!rest.empty()) {
        const auto colon = std::min(rest.find(':'), rest.size());
        const std::string candidate = join_path(rest.substr(0, colon), name);
        if (colon > 0 && ::access(candidate.c_str(), X_OK) == 0)
            return candidate;
        rest.remove_prefix(std::min(colon + 1, rest.size()));
    }
    return fail(ErrorCode::not_found, fmt::format("There is no program {} in PATH", name));
}

std::string ExitStatus::describe() const {
    if (exited)
        return fmt::format("exit code {}", code);
    const char* name = ::sigdescr_np(signal);
    return fmt::format("signal {} ({})", signal, name != nullptr ? name : "unknown");
}

Result<ChildProcess> ForkExecLauncher::launch(const ProcessSpec& spec) {
    HR_ASSERT(!spec.argv.empty());
    Prepared prepared;
    HR_TRY(prepared.program, find_program(spec.argv.front()));
    prepared.argv = pointers_to(spec.argv);
    if (spec.environment)
        prepared.envp = pointers_to(*spec.environment);
    else
        for (char** entry = environ;; ++entry) {
            prepared.envp.push_back(*entry);
            if (*entry == nullptr)
                break;
        }
    prepared.parent = ::getpid();

    UniqueFd null_fd;
    std::map<int, int> descriptors = spec.pass_fds;
    for (const auto& [child_fd, our_fd] :
         {std::pair{0, spec.stdin_fd}, {1, spec.stdout_fd}, {2, spec.stderr_fd}}) {
        if (our_fd < 0 && !null_fd) {
            HR_TRY(const int fd, open_null());
            null_fd.reset(fd);
        }
        descriptors[child_fd] = our_fd < 0 ? null_fd.get() : our_fd;
    }
    prepared.descriptors.assign(descriptors.begin(), descriptors.end());
    for (const auto& [child_fd, our_fd] : prepared.descriptors)
        prepared.first_free_fd = std::max({prepared.first_free_fd, child_fd + 1, our_fd + 1});

    std::array<int, 2> pipe_fds{};
    if (::pipe2(pipe_fds.data(), O_CLOEXEC) != 0)
        return fail_errno("Cannot make a pipe", errno);
    const UniqueFd report_reader(pipe_fds[0]);
    UniqueFd report_writer(pipe_fds[1]);
    prepared.first_free_fd = std::max(prepared.first_free_fd, report_writer.get() + 1);

    const pid_t pid = ::fork();
    if (pid < 0)
        return fail_errno(fmt::format("Cannot fork for {}", prepared.program), errno);
    if (pid == 0)
        run_child(spec, prepared, report_writer.get());
    report_writer.reset();

    ChildFailure failure{};
    ssize_t count = 0;
    do
        count = ::read(report_reader.get(), &failure, sizeof failure);
    while (count < 0 && errno == EINTR);
    if (count == static_cast<ssize_t>(sizeof failure)) {
        ::waitpid(pid, nullptr, 0);
        return fail_errno(
            fmt::format("Cannot start {}: {}", prepared.program, step_text(failure.step)),
            failure.saved_errno);
    }
    ChildProcess child{pid, UniqueFd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)))};
    if (!child.pidfd) {
        const int saved_errno = errno;
        ::kill(pid, SIGKILL);
        ::waitpid(pid, nullptr, 0);
        return fail_errno("Cannot open a pidfd", saved_errno, "a kernel of 5.3 or newer has it");
    }
    return child;
}

Result<ExitStatus> reap(const ChildProcess& child) {
    int status = 0;
    pid_t reaped = 0;
    do
        reaped = ::waitpid(child.pid, &status, 0);
    while (reaped < 0 && errno == EINTR);
    if (reaped < 0)
        return fail_errno(fmt::format("Cannot wait for process {}", child.pid), errno);
    ExitStatus result;
    result.exited = WIFEXITED(status);
    if (result.exited)
        result.code = WEXITSTATUS(status);
    else
        result.signal = WTERMSIG(status);
    return result;
}

Result<ExitStatus> wait_for_exit(const ChildProcess& child, std::chrono::milliseconds timeout) {
    const auto deadline = std::chrono::steady_clock::now() + timeout;
    for (;;) {
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(
            deadline - std::chrono::steady_clock::now());
        pollfd waiting{child.pidfd.get(), POLLIN, 0};
        const int ready = ::poll(
            &waiting, 1, static_cast<int>(std::clamp<std::int64_t>(left.count(), 0, INT_MAX)));
        if (ready > 0)
            return reap(child);
        if (ready < 0 && errno != EINTR)
            return fail_errno("Cannot wait for a process", errno);
        if (ready == 0 && left.count() <= 0)
            return fail(ErrorCode::timeout, fmt::format("Process {} still runs after {} ms",
                                                        child.pid, timeout.count()));
    }
}

Result<CapturedOutput> run_captured(ProcessLauncher& launcher, ProcessSpec spec,
                                    std::chrono::milliseconds timeout,
                                    std::size_t max_output_bytes) {
    const std::string name = spec.argv.empty() ? "" : spec.argv.front();
    std::array<UniqueFd, 2> readers;
    std::array<UniqueFd, 2> writers;
    for (std::size_t i = 0; i < 2; ++i) {
        std::array<int, 2> fds{};
        if (::pipe2(fds.data(), O_CLOEXEC) != 0)
            return fail_errno("Cannot make a pipe", errno);
        readers.at(i).reset(fds[0]);
        writers.at(i).reset(fds[1]);
    }
    spec.stdout_fd = writers[0].get();
    spec.stderr_fd = writers[1].get();
    HR_TRY(const auto child, launcher.launch(spec));
    for (auto& writer : writers)
        writer.reset();

    const auto kill_and_reap = [&] {
        ::syscall(SYS_pidfd_send_signal, child.pidfd.get(), SIGKILL, nullptr, 0);
        static_cast<void>(reap(child));
    };
    CapturedOutput output;
    const std::array<std::string*, 2> sinks{&output.out, &output.err};
    const auto deadline = std::chrono::steady_clock::now() + timeout;
    while (readers[0] || readers[1]) {
        std::array<pollfd, 2> waiting{
            {{readers[0].get(), POLLIN, 0}, {readers[1].get(), POLLIN, 0}}};
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(
            deadline - std::chrono::steady_clock::now());
        if (left.count() <= 0) {
            kill_and_reap();
            return fail(ErrorCode::timeout,
                        fmt::format("{} did not end within {} ms", name, timeout.count()));
        }
        if (::poll(waiting.data(), waiting.size(),
                   static_cast<int>(std::min<std::int64_t>(left.count(), INT_MAX))) < 0) {
            if (errno == EINTR)
                continue;
            const int saved_errno = errno;
            kill_and_reap();
            return fail_errno("Cannot wait for output", saved_errno);
        }
        for (std::size_t i = 0; i < 2; ++i) {
            if (waiting.at(i).revents == 0)
                continue;
            std::array<char, 16384> buffer{};
            const ssize_t count = ::read(readers.at(i).get(), buffer.data(), buffer.size());
            if (count < 0 && errno == EINTR)
                continue;
            if (count <= 0) {
                readers.at(i).reset();
                continue;
            }
            sinks.at(i)->append(buffer.data(), static_cast<std::size_t>(count));
            if (sinks.at(i)->size() > max_output_bytes) {
                kill_and_reap();
                return fail(ErrorCode::resource_exhausted,
                            fmt::format("{} printed more than {} bytes", name, max_output_bytes));
            }
        }
    }
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    auto status = wait_for_exit(child, std::max(left, std::chrono::milliseconds(0)));
    if (!status) {
        kill_and_reap();
        return fail(ErrorCode::timeout,
                    fmt::format("{} did not end within {} ms", name, timeout.count()));
    }
    output.status = *status;
    return output;
}

Result<std::string> current_boot_id() {
    HR_TRY(auto text, read_file("/proc/sys/kernel/random/boot_id", 64));
    while (!text.empty() && text.back() == '\n')
        text.pop_back();
    return text;
}

Result<ProcessIdentity> identify_process(pid_t pid) {
    const std::string path = fmt::format("/proc/{}/stat", pid);
    HR_TRY(const auto text, read_file(path, 4096));
    // The second field is "(name)" and may hold anything, so count from its last parenthesis:
    // what follows is field 3 (state).
    const auto name_end = text.rfind(')');
    if (name_end == std::string::npos)
        return fail(ErrorCode::corrupt_data, fmt::format("{} has no process name", path));
    std::string_view rest = std::string_view(text).substr(name_end + 1);
    const auto next_field = [&rest] {
        rest.remove_prefix(std::min(rest.find_first_not_of(' '), rest.size()));
        const auto end = std::min(rest.find(' '), rest.size());
        const auto field = rest.substr(0, end);
        rest.remove_prefix(end);
        return field;
    };
    if (const auto state = next_field(); state == "Z" || state == "X")
        return fail(ErrorCode::not_found, fmt::format("Process {} has ended", pid));
    std::string_view field;
    for (int number = 4; number <= 22; ++number)
        field = next_field();
    ProcessIdentity identity;
    identity.pid = pid;
    const auto [end, problem] =
        std::from_chars(field.data(), field.data() + field.size(), identity.start_ticks);
    if (problem != std::errc{} || end != field.data() + field.size())
        return fail(ErrorCode::corrupt_data, fmt::format("{} has no start time", path));
    HR_TRY(identity.boot_id, current_boot_id());
    return identity;
}

bool is_alive(const ProcessIdentity& identity) {
    if (identity.pid <= 0)
        return false;
    const auto now = identify_process(identity.pid);
    return now && now->start_ticks == identity.start_ticks && now->boot_id == identity.boot_id;
}

} // namespace host_runner

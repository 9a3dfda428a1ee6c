// SPDX-License-Identifier: Apache-2.0
#include "host_runner/usernet/program/confine.hpp"

#include <cerrno>
#include <csignal>
#include <cstdint>
#include <memory>

#include <fcntl.h>
#include <grp.h>
#include <linux/landlock.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "host_runner/base/files.hpp"
#include "host_runner/base/unique_fd.hpp"

namespace host_runner::usernet::program {

namespace {

constexpr auto always = {
    // sockets, all of them libslirp's but the one of the frames
    SCMP_SYS(connect), SCMP_SYS(bind), SCMP_SYS(listen), SCMP_SYS(accept), SCMP_SYS(accept4),
    SCMP_SYS(sendto), SCMP_SYS(recvfrom), SCMP_SYS(recvmsg), SCMP_SYS(shutdown),
    SCMP_SYS(getsockname), SCMP_SYS(getpeername), SCMP_SYS(getsockopt), SCMP_SYS(setsockopt),
    SCMP_SYS(close), SCMP_SYS(dup2), SCMP_SYS(read), SCMP_SYS(write), SCMP_SYS(readv),
    SCMP_SYS(writev), SCMP_SYS(fcntl),
    // waiting and time
    SCMP_SYS(poll), SCMP_SYS(ppoll), SCMP_SYS(clock_gettime), SCMP_SYS(clock_nanosleep),
    SCMP_SYS(gettimeofday), SCMP_SYS(time), SCMP_SYS(restart_syscall), SCMP_SYS(futex),
    // memory (none of it becomes executable: see below)
    SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(madvise), SCMP_SYS(brk),
    // this process
    SCMP_SYS(rt_sigaction), SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigreturn), SCMP_SYS(getpid),
    SCMP_SYS(gettid), SCMP_SYS(exit), SCMP_SYS(exit_group), SCMP_SYS(getrandom)};

/// Reading /etc/resolv.conf, as libslirp does at a DNS packet when it has changed.
constexpr auto for_resolver = {SCMP_SYS(stat), SCMP_SYS(newfstatat), SCMP_SYS(fstat),
                               SCMP_SYS(lseek), SCMP_SYS(statx)};

/// Only reading, and that only beneath the folders that resolv.conf lies in. Kernels without
/// Landlock (before 5.13, or switched off) leave it at reading.
void restrict_files() {
    landlock_ruleset_attr rules{};
    rules.handled_access_fs = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR |
                              LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_EXECUTE;
    const UniqueFd ruleset(
        static_cast<int>(::syscall(SYS_landlock_create_ruleset, &rules, sizeof rules, 0)));
    if (!ruleset)
        return;
    const auto allow = [&](const std::string& folder) {
        const UniqueFd parent(::open(folder.c_str(), O_PATH | O_CLOEXEC));
        if (!parent)
            return;
        landlock_path_beneath_attr beneath{};
        beneath.allowed_access = LANDLOCK_ACCESS_FS_READ_FILE;
        beneath.parent_fd = parent.get();
        static_cast<void>(::syscall(SYS_landlock_add_rule, ruleset.get(),
                                    LANDLOCK_RULE_PATH_BENEATH, &beneath, 0));
    };
    allow("/etc");
    if (const auto real = canonical_path("/etc/resolv.conf"))
        allow(parent_path(*real));
    static_cast<void>(::syscall(SYS_landlock_restrict_self, ruleset.get(), 0));
}

} // namespace

Result<void> become_user(uid_t user) {
    const pid_t parent = ::getppid();
    const gid_t group = user;
    if (::setgroups(0, nullptr) != 0 || ::setresgid(group, group, group) != 0 ||
        ::setresuid(user, user, user) != 0)
        return fail_errno("Cannot give up root's rights", errno);
    // Other processes of that user could read this one's memory.
    ::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    // A change of ids has cleared it (prctl(2)).
    if (::prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0)
        return fail_errno("Cannot set the parent-death signal", errno);
    if (::getppid() != parent)
        return fail(ErrorCode::wrong_state, "The runner has ended meanwhile");
    return {};
}

Result<void> confine(Files files) {
    if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return fail_errno("Cannot set no_new_privs", errno);
    restrict_files();
    // What is not allowed fails, it does not kill: libslirp goes on where it tries one thing more.
    const std::unique_ptr<void, void (*)(scmp_filter_ctx)> filter(
        ::seccomp_init(SCMP_ACT_ERRNO(EPERM)), ::seccomp_release);
    if (!filter)
        return fail(ErrorCode::internal, "Cannot make a filter of system calls");
    int problem = 0;
    const auto allow = [&](int call, auto... conditions) {
        const int result = ::seccomp_rule_add(filter.get(), SCMP_ACT_ALLOW, call,
                                              sizeof...(conditions), conditions...);
        if (problem == 0)
            problem = result;
    };
    const auto equal = [](unsigned argument, std::uint64_t value) {
        return scmp_arg_cmp{argument, SCMP_CMP_EQ, value, 0};
    };
    const auto mask = [](unsigned argument, std::uint64_t bits, std::uint64_t value) {
        return scmp_arg_cmp{argument, SCMP_CMP_MASKED_EQ, bits, value};
    };
    for (const int call : always)
        allow(call);
    allow(SCMP_SYS(socket), equal(0, AF_INET));
    allow(SCMP_SYS(socket), equal(0, AF_INET6));
    allow(SCMP_SYS(ioctl), equal(1, FIONREAD));
    allow(SCMP_SYS(mmap), mask(2, PROT_EXEC, 0));
    allow(SCMP_SYS(mprotect), mask(2, PROT_EXEC, 0));
    // abort(), so that a broken libslirp ends as one.
    allow(SCMP_SYS(tgkill), equal(0, static_cast<std::uint64_t>(::getpid())));
    if (files == Files::resolver) {
        for (const int call : for_resolver)
            allow(call);
        allow(SCMP_SYS(openat), mask(2, O_ACCMODE | O_CREAT | O_TRUNC, O_RDONLY));
    }
    const int loaded = ::seccomp_load(filter.get());
    if (problem == 0)
        problem = loaded;
    if (problem != 0)
        return fail_errno("Cannot confine the system calls of user_network", -problem);
    return {};
}

} // namespace host_runner::usernet::program

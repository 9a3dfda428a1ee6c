// SPDX-License-Identifier: Apache-2.0
#include "host_runner/wasm/worker/confine.hpp"

#include <cerrno>
#include <cstdint>
#include <memory>

#include <sched.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <fmt/format.h>

namespace host_runner::wasm::worker {

namespace {

/// Calls that take any argument. What each group is for matters more than each call: whoever adds a
/// function to WASI adds its calls here.
constexpr auto always = {
    // files beneath the root folder
    SCMP_SYS(openat2), SCMP_SYS(openat), SCMP_SYS(close), SCMP_SYS(read), SCMP_SYS(write),
    SCMP_SYS(readv), SCMP_SYS(writev), SCMP_SYS(pread64), SCMP_SYS(pwrite64), SCMP_SYS(preadv),
    SCMP_SYS(pwritev), SCMP_SYS(preadv2), SCMP_SYS(pwritev2), SCMP_SYS(lseek), SCMP_SYS(fstat),
    SCMP_SYS(newfstatat), SCMP_SYS(fcntl), SCMP_SYS(fsync), SCMP_SYS(fdatasync),
    SCMP_SYS(ftruncate), SCMP_SYS(fadvise64), SCMP_SYS(getdents64), SCMP_SYS(mkdirat),
    SCMP_SYS(unlinkat), SCMP_SYS(renameat), SCMP_SYS(renameat2), SCMP_SYS(linkat),
    SCMP_SYS(symlinkat), SCMP_SYS(readlinkat), SCMP_SYS(utimensat),
    // sockets that are there already, and those that come in through them
    SCMP_SYS(accept4), SCMP_SYS(shutdown), SCMP_SYS(recvfrom), SCMP_SYS(recvmsg), SCMP_SYS(sendto),
    SCMP_SYS(sendmsg), SCMP_SYS(getsockopt), SCMP_SYS(setsockopt), SCMP_SYS(getsockname),
    SCMP_SYS(getpeername),
    // waiting and time
    SCMP_SYS(poll), SCMP_SYS(ppoll), SCMP_SYS(eventfd2), SCMP_SYS(futex), SCMP_SYS(clock_gettime),
    SCMP_SYS(clock_getres), SCMP_SYS(clock_nanosleep), SCMP_SYS(nanosleep),
    SCMP_SYS(restart_syscall), SCMP_SYS(sched_yield), SCMP_SYS(sched_getaffinity),
    // memory (none of it becomes executable: see below)
    SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(madvise), SCMP_SYS(brk), SCMP_SYS(memfd_create),
    // threads and signals of this process
    SCMP_SYS(set_robust_list), SCMP_SYS(rseq), SCMP_SYS(sigaltstack), SCMP_SYS(rt_sigaction),
    SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigreturn), SCMP_SYS(rt_sigtimedwait),
    SCMP_SYS(rt_sigpending), SCMP_SYS(getpid), SCMP_SYS(gettid), SCMP_SYS(exit),
    SCMP_SYS(exit_group),
    // random
    SCMP_SYS(getrandom)};

constexpr auto for_http = {SCMP_SYS(epoll_create1), SCMP_SYS(epoll_ctl), SCMP_SYS(epoll_wait),
                           SCMP_SYS(epoll_pwait)};
constexpr auto for_functions = {SCMP_SYS(pipe2)};
constexpr auto for_connections = {SCMP_SYS(socket), SCMP_SYS(connect)};

} // namespace

Result<void> confine(const ConfineOptions& options) {
    const std::unique_ptr<void, void (*)(scmp_filter_ctx)> filter(
        ::seccomp_init(SCMP_ACT_KILL_PROCESS), ::seccomp_release);
    if (!filter)
        return fail(ErrorCode::internal, "Cannot make a filter of system calls");
    int problem = 0;
    const auto keep = [&](int result) {
        if (problem == 0)
            problem = result;
    };
    const auto allow = [&](int call, auto... conditions) {
        keep(::seccomp_rule_add(filter.get(), SCMP_ACT_ALLOW, call, sizeof...(conditions),
                                conditions...));
    };
    const auto mask = [](unsigned argument, std::uint64_t bits, std::uint64_t value) {
        return scmp_arg_cmp{argument, SCMP_CMP_MASKED_EQ, bits, value};
    };
    const auto equal = [](unsigned argument, std::uint64_t value) {
        return scmp_arg_cmp{argument, SCMP_CMP_EQ, value, 0};
    };
    // The engine starts threads; they are as confined as this one.
    keep(::seccomp_attr_set(filter.get(), SCMP_FLTATR_CTL_TSYNC, 1));
    for (const int call : always)
        allow(call);
    if (options.serves_http)
        for (const int call : for_http)
            allow(call);
    if (options.serves_functions)
        for (const int call : for_functions)
            allow(call);
    if (options.opens_connections)
        for (const int call : for_connections)
            allow(call);
    // A thread is no process. Its flags are out of a filter's sight in clone3, for which glibc
    // falls back to clone when it is told that there is none.
    allow(SCMP_SYS(clone), mask(0, CLONE_THREAD, CLONE_THREAD));
    keep(::seccomp_rule_add(filter.get(), SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0));
    // The module's code is loaded by now: whoever breaks out cannot bring code of their own.
    allow(SCMP_SYS(mmap), mask(2, PROT_EXEC, 0));
    allow(SCMP_SYS(mprotect), mask(2, PROT_EXEC, 0));
    allow(SCMP_SYS(ioctl), equal(1, FIONREAD));
    allow(SCMP_SYS(prctl), equal(0, PR_SET_NAME));
    allow(SCMP_SYS(prlimit64), equal(2, 0)); // to read a limit, not to set one
    // abort(), so that a broken engine ends as one.
    allow(SCMP_SYS(tgkill), equal(0, static_cast<std::uint64_t>(::getpid())));
    keep(::seccomp_load(filter.get()));
    if (problem != 0)
        return fail_errno("Cannot confine the worker's system calls", -problem);
    return {};
}

} // namespace host_runner::wasm::worker

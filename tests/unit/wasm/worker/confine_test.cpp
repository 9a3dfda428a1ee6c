// SPDX-License-Identifier: Apache-2.0
#include "host_runner/wasm/worker/confine.hpp"

#include <atomic>
#include <csignal>
#include <functional>
#include <thread>

#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <gmock/gmock.h>

#include "fakes/sanitizer.hpp"
#include "host_runner/base/files.hpp"

namespace host_runner::wasm::worker {
namespace {

/// What a confined process does in its own child of the test; it exits with 0 when it got so far.
void confined(const std::function<void()>& deed) {
    ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (const auto done = confine(); !done) {
        static_cast<void>(write_all(STDERR_FILENO, done.error().describe()));
        ::_exit(99);
    }
    deed();
    ::_exit(0);
}

/// SIGSYS, the kernel's answer to a call that the filter does not allow.
const auto is_killed = testing::KilledBySignal(SIGSYS);
const auto goes_on = testing::ExitedWithCode(0);

class ConfineDeathTest : public testing::Test {
protected:
    void SetUp() override {
        // The child is confined: it must be one that has no other threads.
        GTEST_FLAG_SET(death_test_style, "threadsafe");
        if (tests::has_sanitizer)
            GTEST_SKIP() << "a sanitizer makes calls of its own, which are not allowed";
    }
};

TEST_F(ConfineDeathTest, allows_no_new_sockets_or_listeners) {
    EXPECT_EXIT(confined([] { ::socket(AF_INET, SOCK_STREAM, 0); }), is_killed, "");
    EXPECT_EXIT(confined([] { ::listen(STDIN_FILENO, 1); }), is_killed, "");
    EXPECT_EXIT(confined([] { ::connect(STDIN_FILENO, nullptr, 0); }), is_killed, "");
}

TEST_F(ConfineDeathTest, allows_no_new_processes_or_programs) {
    EXPECT_EXIT(confined([] { static_cast<void>(::fork()); }), is_killed, "");
    EXPECT_EXIT(confined([] { ::execl("/bin/true", "true", nullptr); }), is_killed, "");
    EXPECT_EXIT(confined([] { ::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr); }), is_killed, "");
    EXPECT_EXIT(confined([] { ::kill(::getpid(), SIGTERM); }), is_killed, "");
}

TEST_F(ConfineDeathTest, allows_no_new_code) {
    EXPECT_EXIT(confined([] {
                    ::mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                           0);
                }),
                is_killed, "");
    EXPECT_EXIT(confined([] {
                    void* page = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE,
                                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
                    ::mprotect(page, 4096, PROT_READ | PROT_EXEC);
                }),
                is_killed, "");
}

TEST_F(ConfineDeathTest, allows_no_rights_and_no_other_view_of_the_system) {
    EXPECT_EXIT(confined([] { ::syscall(SYS_setuid, 0); }), is_killed, "");
    EXPECT_EXIT(confined([] { ::unshare(CLONE_NEWUSER); }), is_killed, "");
    EXPECT_EXIT(confined([] { ::prctl(PR_SET_DUMPABLE, 1); }), is_killed, "");
    // 32-bit calls have other numbers; int 0x80 with 20 is getpid.
    EXPECT_EXIT(confined([] {
                    long number = 20;
                    asm volatile("int $0x80" : "+a"(number) : : "memory");
                }),
                is_killed, "");
}

TEST_F(ConfineDeathTest, allows_threads_memory_time_and_open_files) {
    EXPECT_EXIT(confined([] {
                    std::thread([] {}).join();
                    void* page = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE,
                                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
                    ::munmap(page, 4096);
                    ::usleep(1);
                    static_cast<void>(write_all(STDERR_FILENO, "still here"));
                }),
                goes_on, "still here");
}

TEST_F(ConfineDeathTest, holds_for_threads_that_were_there_before) {
    EXPECT_EXIT(
        {
            std::atomic<bool> is_confined = false;
            std::thread earlier([&] {
                while (!is_confined)
                    std::this_thread::yield();
                ::socket(AF_INET, SOCK_STREAM, 0);
            });
            confined([&] {
                is_confined = true;
                earlier.join();
            });
        },
        is_killed, "");
}

} // namespace
} // namespace host_runner::wasm::worker

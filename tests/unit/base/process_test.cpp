// SPDX-License-Identifier: Apache-2.0
#include "host_runner/base/process.hpp"

#include <array>
#include <csignal>
#include <fstream>
#include <sstream>

#include <fcntl.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "fakes/temporary_directory.hpp"
#include "host_runner/base/files.hpp"

namespace host_runner {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;

CapturedOutput run(std::vector<std::string> argv) {
    ForkExecLauncher launcher;
    ProcessSpec spec;
    spec.argv = std::move(argv);
    auto output = run_captured(launcher, std::move(spec), 10s);
    EXPECT_TRUE(output) << output.error().describe();
    return output ? *output : CapturedOutput{};
}

TEST(RunCaptured, keeps_both_streams_and_the_exit_code) {
    const auto output = run({"sh", "-c", "echo out; echo err >&2; exit 3"});
    EXPECT_EQ(output.out, "out\n");
    EXPECT_EQ(output.err, "err\n");
    EXPECT_TRUE(output.status.exited);
    EXPECT_EQ(output.status.code, 3);
}

TEST(RunCaptured, tells_a_signal_from_an_exit) {
    const auto output = run({"sh", "-c", "kill -KILL $$"});
    EXPECT_FALSE(output.status.exited);
    EXPECT_EQ(output.status.describe(), "signal 9 (Killed)");
}

TEST(RunCaptured, kills_at_the_deadline) {
    ForkExecLauncher launcher;
    ProcessSpec spec;
    spec.argv = {"sleep", "1000"};
    const auto output = run_captured(launcher, spec, 20ms);
    ASSERT_FALSE(output);
    EXPECT_EQ(output.error().code, ErrorCode::timeout);
}

TEST(RunCaptured, kills_a_program_that_prints_too_much) {
    ForkExecLauncher launcher;
    ProcessSpec spec;
    spec.argv = {"yes"};
    const auto output = run_captured(launcher, spec, 10s, 100'000);
    ASSERT_FALSE(output);
    EXPECT_EQ(output.error().code, ErrorCode::resource_exhausted);
}

TEST(Launch, names_a_missing_program) {
    ForkExecLauncher launcher;
    ProcessSpec spec;
    spec.argv = {"no-such-program-anywhere"};
    const auto child = launcher.launch(spec);
    ASSERT_FALSE(child);
    EXPECT_EQ(child.error().code, ErrorCode::not_found);
    EXPECT_THAT(child.error().message, HasSubstr("no-such-program-anywhere"));
}

TEST(Launch, reports_the_step_that_failed_in_the_child) {
    ForkExecLauncher launcher;
    ProcessSpec spec;
    spec.argv = {"true"};
    spec.working_directory = "/no/such/folder";
    const auto child = launcher.launch(spec);
    ASSERT_FALSE(child);
    EXPECT_THAT(child.error().message, HasSubstr("cannot enter the working directory"));
}

TEST(Launch, passes_chosen_descriptors_and_no_others) {
    const tests::TemporaryDirectory dir;
    ASSERT_TRUE(write_file_atomic(dir / "a", "first"));
    ASSERT_TRUE(write_file_atomic(dir / "b", "second"));
    const UniqueFd first(::open((dir / "a").c_str(), O_RDONLY));  // no O_CLOEXEC on purpose:
    const UniqueFd second(::open((dir / "b").c_str(), O_RDONLY)); // the child must close it anyway
    ForkExecLauncher launcher;
    ProcessSpec spec;
    spec.argv = {"sh", "-c", "cat <&5; cat <&4; ls /proc/self/fd | tr '\\n' ' '"};
    spec.pass_fds = {{5, first.get()}, {4, second.get()}};
    const auto output = run_captured(launcher, spec, 10s);
    ASSERT_TRUE(output);
    // 3 is ls's own look at the folder.
    EXPECT_EQ(output->out, "firstsecond0 1 2 3 4 5 ");
}

TEST(Launch, swaps_descriptors_without_losing_one) {
    std::array<int, 2> one{};
    std::array<int, 2> two{};
    ASSERT_EQ(::pipe2(one.data(), O_CLOEXEC), 0);
    ASSERT_EQ(::pipe2(two.data(), O_CLOEXEC), 0);
    ForkExecLauncher launcher;
    ProcessSpec spec;
    spec.argv = {"sh", "-c", fmt::format("echo one >&{}; echo two >&{}", two[1], one[1])};
    spec.pass_fds = {{two[1], one[1]}, {one[1], two[1]}};
    const auto child = launcher.launch(spec);
    ASSERT_TRUE(child);
    ASSERT_TRUE(wait_for_exit(*child, 10s));
    std::array<char, 16> buffer{};
    EXPECT_EQ(
        std::string(buffer.data(), static_cast<std::size_t>(::read(one[0], buffer.data(), 16))),
        "one\n");
    EXPECT_EQ(
        std::string(buffer.data(), static_cast<std::size_t>(::read(two[0], buffer.data(), 16))),
        "two\n");
    for (const int fd : {one[0], one[1], two[0], two[1]})
        ::close(fd);
}

TEST(Launch, sets_no_new_privileges_and_a_process_group_of_its_own) {
    const auto output = run(
        {"sh", "-c", "grep NoNewPrivs /proc/self/status; cut -d' ' -f5 /proc/$$/stat; echo $$"});
    std::istringstream lines(output.out);
    std::string privileges;
    std::string group;
    std::string pid;
    std::getline(lines, privileges);
    std::getline(lines, group);
    std::getline(lines, pid);
    EXPECT_EQ(privileges, "NoNewPrivs:\t1");
    EXPECT_EQ(group, pid);
}

TEST(Launch, gives_the_child_default_signals) {
    sigset_t block;
    sigset_t old;
    sigemptyset(&block);
    sigaddset(&block, SIGTERM);
    ::pthread_sigmask(SIG_BLOCK, &block, &old);
    const auto output = run({"grep", "SigBlk", "/proc/self/status"});
    ::pthread_sigmask(SIG_SETMASK, &old, nullptr);
    EXPECT_EQ(output.out, "SigBlk:\t0000000000000000\n");
}

TEST(Launch, becomes_another_user_and_still_dies_with_its_parent) {
    if (::geteuid() != 0)
        GTEST_SKIP() << "only root may change its user";
    // The parent in between is the one that dies.
    std::array<int, 2> report{};
    ASSERT_EQ(::pipe(report.data()), 0);
    const pid_t parent = ::fork();
    if (parent == 0) {
        ForkExecLauncher launcher;
        ProcessSpec spec;
        spec.argv = {"sh", "-c", "id -u; echo $$; exec sleep 1000"};
        spec.stdout_fd = report[1];
        spec.user = ProcessSpec::User{65534, 65534, {}};
        const auto child = launcher.launch(spec);
        ::close(report[1]);
        ::pause();
        ::_exit(child ? 0 : 1);
    }
    ::close(report[1]);
    std::string text;
    while (std::count(text.begin(), text.end(), '\n') < 2) {
        std::array<char, 64> buffer{};
        const auto count = ::read(report[0], buffer.data(), buffer.size());
        ASSERT_GT(count, 0);
        text.append(buffer.data(), static_cast<std::size_t>(count));
    }
    std::istringstream lines(text);
    std::string uid;
    pid_t grandchild = 0;
    lines >> uid >> grandchild;
    EXPECT_EQ(uid, "65534");
    ::kill(parent, SIGKILL);
    ::waitpid(parent, nullptr, 0);
    // The pipe's last writer is the grandchild: its end is the pipe's end.
    pollfd waiting{report[0], POLLIN, 0};
    ASSERT_EQ(::poll(&waiting, 1, 10'000), 1);
    char byte = 0;
    EXPECT_EQ(::read(report[0], &byte, 1), 0);
    ::close(report[0]);
}

TEST(Launch, enters_a_cgroup_before_anything_else) {
    const tests::TemporaryDirectory folder;
    const UniqueFd procs(
        ::open((folder / "cgroup.procs").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    ForkExecLauncher launcher;
    ProcessSpec spec;
    spec.argv = {"true"};
    spec.cgroup_fd = procs.get();
    ASSERT_TRUE(run_captured(launcher, spec, 10s));
    EXPECT_EQ(read_file(folder / "cgroup.procs", 16).value_or("?"), "0");
}

TEST(Launch, lifts_the_limit_of_locked_memory_for_another_user) {
    rlimit before{};
    ASSERT_EQ(::getrlimit(RLIMIT_MEMLOCK, &before), 0);
    const rlimit unlimited{RLIM_INFINITY, RLIM_INFINITY};
    if (::geteuid() != 0 || ::setrlimit(RLIMIT_MEMLOCK, &unlimited) != 0)
        GTEST_SKIP() << "this process may not lift a limit (CAP_SYS_RESOURCE)";
    ASSERT_EQ(::setrlimit(RLIMIT_MEMLOCK, &before), 0);
    ForkExecLauncher launcher;
    ProcessSpec spec;
    spec.argv = {"sh", "-c", "ulimit -l; id -u"};
    spec.user = ProcessSpec::User{65534, 65534, {}};
    spec.unlimited_locked_memory = true;
    const auto output = run_captured(launcher, spec, 10s);
    ASSERT_TRUE(output) << output.error().describe();
    EXPECT_EQ(output->out, "unlimited\n65534\n");
}

TEST(ProcessIdentity, holds_for_the_process_and_for_no_other) {
    auto self = identify_process(::getpid());
    ASSERT_TRUE(self);
    EXPECT_TRUE(is_alive(*self));
    auto recycled = *self;
    recycled.start_ticks += 1;
    EXPECT_FALSE(is_alive(recycled));
    auto before_reboot = *self;
    before_reboot.boot_id = "00000000-0000-0000-0000-000000000000";
    EXPECT_FALSE(is_alive(before_reboot));
}

TEST(ProcessIdentity, takes_a_zombie_as_ended) {
    const pid_t child = ::fork();
    if (child == 0)
        ::_exit(0);
    siginfo_t info{};
    ASSERT_EQ(::waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOWAIT), 0);
    EXPECT_FALSE(identify_process(child));
    ::waitpid(child, nullptr, 0);
}

} // namespace
} // namespace host_runner

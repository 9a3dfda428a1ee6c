// SPDX-License-Identifier: Apache-2.0
#include "host_runner/agent/service_launch.hpp"

#include <array>

#include <fcntl.h>
#include <unistd.h>

#include <gmock/gmock.h>

#include "fakes/temporary_directory.hpp"
#include "host_runner/base/files.hpp"
#include "host_runner/crypto/digest.hpp"

namespace host_runner::agent {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;

TEST(LaunchRequest, survives_its_encoding) {
    LaunchRequest request;
    request.command = {"/bin/echo", "two words", "\"quoted\"", ""};
    request.cgroup = "/sys/fs/cgroup/service-web";
    request.working_directory = "/srv";
    request.user = ProcessSpec::User{1000, 1001, {6, 44}};
    request.mounts = {{"/data/volumes/a", "/a", false, false}, {"/files/x", "/etc/x", true, true}};
    request.terminal = "/dev/ttyS0";
    request.report_fd = 3;
    const auto decoded = decode_launch_request(encode_launch_request(request));
    ASSERT_TRUE(decoded) << decoded.error().describe();
    EXPECT_EQ(decoded->command, request.command);
    EXPECT_EQ(decoded->cgroup, request.cgroup);
    EXPECT_EQ(decoded->working_directory, request.working_directory);
    ASSERT_TRUE(decoded->user);
    EXPECT_EQ(decoded->user->uid, 1000U);
    EXPECT_EQ(decoded->user->gid, 1001U);
    EXPECT_EQ(decoded->user->groups, request.user->groups);
    ASSERT_EQ(decoded->mounts.size(), 2U);
    EXPECT_EQ(decoded->mounts[1].source, "/files/x");
    EXPECT_EQ(decoded->mounts[1].target, "/etc/x");
    EXPECT_TRUE(decoded->mounts[1].read_only);
    EXPECT_TRUE(decoded->mounts[1].is_file);
    EXPECT_EQ(decoded->terminal, request.terminal);
    EXPECT_EQ(decoded->report_fd, 3);
}

TEST(LaunchRequest, refuses_what_is_none) {
    for (const auto* text : {"", "{}", "[1]", R"({"command":"x"})"})
        EXPECT_EQ(decode_launch_request(text).error().code, ErrorCode::invalid_argument) << text;
}

TEST(LaunchReport, tells_hash_and_error_apart) {
    const auto good = parse_launch_report("sha256 abcd\n");
    EXPECT_EQ(good.program_sha256, "abcd");
    EXPECT_TRUE(good.error.empty());
    const auto bad = parse_launch_report("sha256 abcd\nerror Cannot execute x: denied\n");
    EXPECT_EQ(bad.error, "Cannot execute x: denied");
}

/// Runs `guest_agent launch` as the agent does.
class Launch : public testing::Test {
protected:
    struct Outcome {
        CapturedOutput output;
        LaunchReport report;
    };
    Outcome run() {
        std::array<int, 2> fds{};
        EXPECT_EQ(::pipe2(fds.data(), O_CLOEXEC), 0);
        const UniqueFd reader(fds[0]);
        UniqueFd writer(fds[1]);
        request.report_fd = 3;
        ProcessSpec spec;
        spec.argv = {GUEST_AGENT, "launch", encode_launch_request(request)};
        spec.environment = {"PATH=/nowhere:/usr/bin:/bin", "GREETING=hello"};
        spec.pass_fds = {{3, writer.get()}};
        ForkExecLauncher launcher;
        auto output = run_captured(launcher, spec, 30s);
        writer.reset();
        EXPECT_TRUE(output) << output.error().describe();
        return {output.value_or(CapturedOutput{}),
                parse_launch_report(read_all(reader.get(), 8192).value_or(""))};
    }
    tests::TemporaryDirectory folder;
    LaunchRequest request;
};

TEST_F(Launch, runs_the_program_found_in_path_with_its_environment_and_folder) {
    request.command = {"sh", "-c", "echo $GREETING from $(pwd)"};
    request.working_directory = folder.path();
    const auto outcome = run();
    EXPECT_EQ(outcome.output.out, "hello from " + folder.path() + "\n");
    EXPECT_TRUE(outcome.report.error.empty());
}

TEST_F(Launch, reports_the_hash_of_the_file_that_runs) {
    ASSERT_TRUE(write_file_atomic(folder / "program", "#!/bin/sh\nexit 5\n", 0755));
    request.command = {folder / "program"};
    const auto outcome = run();
    EXPECT_EQ(outcome.output.status.code, 5);
    EXPECT_EQ(outcome.report.program_sha256, crypto::sha256_hex("#!/bin/sh\nexit 5\n"));
}

TEST_F(Launch, leaves_no_descriptor_of_its_own_to_the_program) {
    request.command = {"sh", "-c", "ls /proc/self/fd | wc -l"};
    EXPECT_EQ(run().output.out, "4\n"); // 0, 1, 2 and the folder that ls reads
}

TEST_F(Launch, ends_with_127_when_the_program_is_missing) {
    request.command = {"no-such-program"};
    const auto outcome = run();
    EXPECT_EQ(outcome.output.status.code, 127);
    EXPECT_THAT(outcome.report.error, HasSubstr("no-such-program"));
}

TEST_F(Launch, ends_with_126_when_the_program_cannot_be_executed) {
    ASSERT_TRUE(write_file_atomic(folder / "data", "no program", 0644));
    request.command = {folder / "data"};
    const auto outcome = run();
    EXPECT_EQ(outcome.output.status.code, 126);
    EXPECT_THAT(outcome.report.error, HasSubstr("Permission denied"));
}

TEST_F(Launch, names_the_working_directory_that_is_missing) {
    request.command = {"true"};
    request.working_directory = folder / "nowhere";
    EXPECT_THAT(run().report.error, HasSubstr(folder / "nowhere"));
}

TEST_F(Launch, joins_its_cgroup_first) {
    ASSERT_TRUE(write_file_atomic(folder / "cgroup.procs", ""));
    request.command = {"true"};
    request.cgroup = folder.path();
    EXPECT_TRUE(run().report.error.empty());
    EXPECT_EQ(*read_file(folder / "cgroup.procs", 10), "0");
}

TEST_F(Launch, says_what_it_lacks_without_a_report) {
    request.command = {"no-such-program"};
    ProcessSpec spec;
    spec.argv = {GUEST_AGENT, "launch", encode_launch_request(request)};
    ForkExecLauncher launcher;
    const auto output = run_captured(launcher, spec, 30s);
    ASSERT_TRUE(output);
    EXPECT_EQ(output->status.code, 127);
    EXPECT_THAT(output->err, HasSubstr("no-such-program"));
}

} // namespace
} // namespace host_runner::agent

// SPDX-License-Identifier: Apache-2.0
//
// Real workers: `guest_agent worker` as `guest_agent launch` starts it, with modules of a C
// compiler. Where a module meets files, service_launch_test.cpp has the tests: a worker's root
// folder is made there.
#include "host_runner/wasm/worker/worker.hpp"

#include <array>
#include <csignal>

#include <arpa/inet.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <gmock/gmock.h>

#include "compiled_fixture.hpp"
#include "fakes/sanitizer.hpp"
#include "host_runner/base/files.hpp"
#include "host_runner/base/process.hpp"
#include "host_runner/wasm/worker/request.hpp"

namespace host_runner::wasm::worker {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::StartsWith;
using tests::compiled;
using tests::memory_file;

/// Also on a machine that is busy with other things.
constexpr auto patience = 60s;
constexpr int artifact_number = 3;

int to_int(WorkerExit code) {
    return static_cast<int>(code);
}

class Worker : public testing::Test {
protected:
    void SetUp() override {
        if (tests::has_sanitizer)
            GTEST_SKIP() << "a sanitizer makes calls that a worker may not";
    }
    Worker() {
        request.artifact_fd = artifact_number;
        request.memory_bytes = std::uint64_t{64} << 20U;
    }
    /// @param output takes stdout and stderr; -1: nobody
    ProcessSpec spec(int artifact, int output = -1) const {
        ProcessSpec spec;
        spec.argv = {GUEST_AGENT, "worker", encode_request(request)};
        spec.environment = environment;
        spec.stdout_fd = output;
        spec.stderr_fd = output;
        spec.pass_fds = {{artifact_number, artifact}};
        return spec;
    }
    CapturedOutput run(std::vector<std::string> arguments,
                       const std::string& module = "deeds_wasi.wasm") {
        request.arguments = std::move(arguments);
        request.arguments.insert(request.arguments.begin(), "deeds");
        const auto artifact = compiled(module);
        ForkExecLauncher launcher;
        auto output =
            run_captured(launcher, spec(artifact.get()), patience, std::size_t{16} << 20U);
        EXPECT_TRUE(output) << output.error().describe();
        return output.value_or(CapturedOutput{});
    }
    Request request;
    std::vector<std::string> environment;
};

TEST_F(Worker, gives_the_module_its_arguments) {
    const auto output = run({"arguments", "two words", ""});
    EXPECT_EQ(output.out, "deeds\narguments\ntwo words\n\n");
    EXPECT_THAT(output.err, IsEmpty());
    EXPECT_EQ(output.status.code, 0);
}

TEST_F(Worker, gives_the_module_its_environment_and_the_names_of_its_descriptors) {
    environment = {"GREETING=hello = world", "EMPTY="};
    EXPECT_EQ(run({"environment"}).out, "GREETING=hello = world\nEMPTY=\nFD_COUNT=3\n"
                                        "FD_NAMES=stdin:stdout:stderr\n");
    environment = {"FD_NAMES=mine"};
    EXPECT_EQ(run({"environment"}).out, "FD_NAMES=mine\nFD_COUNT=3\n");
}

TEST_F(Worker, gives_an_empty_input_and_keeps_the_outputs_apart) {
    EXPECT_EQ(run({"input"}).out, "-1\n");
    const auto output = run({"complain"});
    EXPECT_THAT(output.out, IsEmpty());
    EXPECT_EQ(output.err, "complaint\n");
}

TEST_F(Worker, loses_nothing_of_a_large_output) {
    EXPECT_EQ(run({"flood"}).out.size(), std::size_t{4} << 20U);
}

TEST_F(Worker, ends_with_the_exit_code_of_the_module) {
    EXPECT_EQ(run({"exit", "0"}).status.code, 0);
    EXPECT_EQ(run({"exit", "7"}).status.code, 7);
    EXPECT_EQ(run({"exit", "255"}).status.code, 255);
    // A process has eight bits for it, and a failure must not look like success.
    EXPECT_EQ(run({"exit", "300"}).status.code, 44);
    EXPECT_EQ(run({"exit", "256"}).status.code, 1);
}

TEST_F(Worker, shows_the_place_of_a_trap) {
    const auto output = run({"trap"});
    EXPECT_EQ(output.status.code, to_int(WorkerExit::trapped));
    EXPECT_THAT(output.err, StartsWith("guest_agent: The module trapped: Unreachable"));
    EXPECT_THAT(output.err, HasSubstr("\n  at ? (function "));
}

TEST_F(Worker, ends_a_module_after_its_time_out_whether_it_computes_or_waits) {
    request.timeout = 100ms;
    for (const auto* deed : {"spin", "sleep"}) {
        const auto output = run({deed});
        EXPECT_EQ(output.status.code, to_int(WorkerExit::timed_out)) << deed;
        EXPECT_THAT(output.err, HasSubstr("time-out of 100 ms")) << deed;
    }
}

TEST_F(Worker, ends_a_module_that_wants_more_memory_than_it_may_have) {
    request.memory_bytes = std::uint64_t{8} << 20U;
    const auto output = run({"exhaust"});
    EXPECT_EQ(output.status.code, to_int(WorkerExit::out_of_memory));
    EXPECT_THAT(output.err, HasSubstr("its limit is 8388608"));
}

TEST_F(Worker, refuses_a_module_whose_imports_nobody_has) {
    const auto output = run({}, "missing_imports.wasm");
    EXPECT_EQ(output.status.code, to_int(WorkerExit::not_runnable));
    EXPECT_THAT(output.err, StartsWith("guest_agent: "));
}

TEST_F(Worker, refuses_bytes_that_no_compiler_made) {
    const auto artifact = memory_file();
    ASSERT_TRUE(write_all(artifact.get(), "no native code"));
    ::lseek(artifact.get(), 0, SEEK_SET);
    ForkExecLauncher launcher;
    const auto output = run_captured(launcher, spec(artifact.get()), patience);
    ASSERT_TRUE(output);
    EXPECT_EQ(output->status.code, to_int(WorkerExit::not_runnable));
    EXPECT_THAT(output->err, HasSubstr("artifact"));
}

TEST_F(Worker, refuses_a_request_that_is_none) {
    ForkExecLauncher launcher;
    ProcessSpec spec;
    spec.argv = {GUEST_AGENT, "worker", "{}"};
    const auto output = run_captured(launcher, spec, patience);
    ASSERT_TRUE(output);
    EXPECT_EQ(output->status.code, to_int(WorkerExit::not_runnable));
}

/// One that is running, with its outputs in a pipe.
struct RunningWorker {
    ChildProcess child;
    UniqueFd output;
    ~RunningWorker() {
        if (child.pid <= 0)
            return;
        ::kill(child.pid, SIGKILL);
        static_cast<void>(reap(child));
    }
    /// Waits for a line that holds `text`.
    void wait_for(std::string_view text) const {
        std::string seen;
        std::array<char, 256> buffer{};
        while (seen.find(text) == std::string::npos) {
            const auto count = ::read(output.get(), buffer.data(), buffer.size());
            ASSERT_GT(count, 0) << seen;
            seen.append(buffer.data(), static_cast<std::size_t>(count));
        }
    }
};

class RunningModule : public Worker {
protected:
    RunningWorker start(std::vector<std::string> arguments, const std::string& module) {
        request.arguments = std::move(arguments);
        std::array<int, 2> fds{};
        EXPECT_EQ(::pipe2(fds.data(), O_CLOEXEC), 0);
        const UniqueFd writer(fds[1]);
        const auto artifact = compiled(module);
        ForkExecLauncher launcher;
        auto child = launcher.launch(spec(artifact.get(), writer.get()));
        EXPECT_TRUE(child) << child.error().describe();
        return {std::move(child.value()), UniqueFd(fds[0])};
    }
};

TEST_F(RunningModule, ends_at_sigterm_whether_it_computes_or_waits) {
    for (const auto* deed : {"spin", "sleep"}) {
        auto worker = start({"deeds", deed}, "deeds_wasi.wasm");
        worker.wait_for("ing\n");
        ASSERT_EQ(::kill(worker.child.pid, SIGTERM), 0);
        const auto status = wait_for_exit(worker.child, patience);
        ASSERT_TRUE(status);
        worker.child.pid = -1;
        EXPECT_EQ(status->code, to_int(WorkerExit::cancelled)) << deed;
    }
}

TEST_F(RunningModule, is_confined_and_shows_its_memory_to_nobody) {
    const auto worker = start({"deeds", "sleep"}, "deeds_wasi.wasm");
    worker.wait_for("sleeping");
    const auto proc = "/proc/" + std::to_string(worker.child.pid);
    const auto status = read_file(proc + "/status", 1 << 16);
    ASSERT_TRUE(status);
    EXPECT_THAT(*status, HasSubstr("\nSeccomp:\t2\n"));
    EXPECT_THAT(*status, HasSubstr("\nNoNewPrivs:\t1\n"));
    const auto limits = read_file(proc + "/limits", 1 << 16);
    ASSERT_TRUE(limits);
    EXPECT_THAT(*limits, testing::ContainsRegex("Max core file size +0 +0 "));
}

/// A port that was free a moment ago.
std::uint16_t free_port() {
    const UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    EXPECT_EQ(::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
    return ntohs(address.sin_port);
}

std::string get(std::uint16_t port) {
    const UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
        return "";
    static_cast<void>(write_all(fd.get(), "GET / HTTP/1.1\r\nHost: x\r\n\r\n"));
    return read_all(fd.get(), 1 << 16).value_or("");
}

TEST_F(RunningModule, serves_on_its_ports) {
    request.ports = {{.number = free_port()}};
    environment = {"GREETING=Good morning"};
    const auto worker = start({"site"}, "site.wasm");
    worker.wait_for("Listening on descriptor 3");
    for (int i = 0; i < 3; ++i)
        EXPECT_THAT(get(request.ports[0].number), HasSubstr("Good morning\nVisits: 1\n"));
}

TEST_F(RunningModule, listens_where_it_is_told_under_the_name_of_the_service_s_port) {
    const auto port = free_port();
    request.ports = {{.number = 80, .address = "127.0.0.1", .listen_port = port}};
    EXPECT_THAT(run({"environment"}).out, HasSubstr("FD_NAMES=stdin:stdout:stderr:80\n"));
    const auto worker = start({"site"}, "site.wasm");
    worker.wait_for("Listening on descriptor 3");
    EXPECT_THAT(get(port), HasSubstr("Visits: 1\n"));
}

TEST_F(RunningModule, says_which_port_is_taken) {
    const auto port = free_port();
    request.ports = {{.number = port}, {.number = port}};
    EXPECT_THAT(run({"site"}, "site.wasm").err, HasSubstr(std::to_string(port)));
    request.ports = {{.number = port}};
    const auto first = start({"site"}, "site.wasm");
    first.wait_for("Listening");
    const auto output = run({"site"}, "site.wasm");
    EXPECT_EQ(output.status.code, to_int(WorkerExit::not_runnable));
    EXPECT_THAT(output.err, HasSubstr("the address is in use"));
}

} // namespace
} // namespace host_runner::wasm::worker

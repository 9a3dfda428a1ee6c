// SPDX-License-Identifier: Apache-2.0
#include "host_runner/agent/service_launch.hpp"

#include <array>
#include <filesystem>
#include <mutex>
#include <set>
#include <thread>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <gmock/gmock.h>

#include "fakes/sanitizer.hpp"
#include "fakes/temporary_directory.hpp"
#include "host_runner/agent/users.hpp"
#include "host_runner/base/files.hpp"
#include "host_runner/crypto/certificate.hpp"
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
    request.module.emplace();
    request.module->path = "/files/x";
    request.module->sha256 = "aa";
    request.module->cache_folder = "/data/modules";
    request.module->root_folder = "/run/root";
    request.module->worker.ports = {{.number = 80},
                                    {.number = 443, .address = "127.0.0.1", .listen_port = 8443}};
    request.module->worker.memory_bytes = 1 << 20;
    request.module->worker.timeout = 90s;
    request.module->tls = LaunchRequest::Module::Tls{"c", "k", "s", "web"};
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
    ASSERT_TRUE(decoded->module);
    EXPECT_EQ(decoded->module->path, "/files/x");
    EXPECT_EQ(decoded->module->sha256, "aa");
    EXPECT_EQ(decoded->module->cache_folder, "/data/modules");
    EXPECT_EQ(decoded->module->root_folder, "/run/root");
    EXPECT_EQ(decoded->module->worker.ports, request.module->worker.ports);
    EXPECT_EQ(decoded->module->worker.memory_bytes, 1U << 20);
    EXPECT_EQ(decoded->module->worker.timeout, 90s);
    ASSERT_TRUE(decoded->module->tls);
    EXPECT_EQ(decoded->module->tls->certificate_path, "c");
    EXPECT_EQ(decoded->module->tls->key_path, "k");
    EXPECT_EQ(decoded->module->tls->store, "s");
    EXPECT_EQ(decoded->module->tls->name, "web");
}

TEST(LaunchRequest, refuses_what_is_none) {
    for (const auto* text : {"", "{}", "[1]", R"({"command":"x"})"})
        EXPECT_EQ(decode_launch_request(text).error().code, ErrorCode::invalid_argument) << text;
}

TEST(LaunchReport, tells_hash_and_error_apart) {
    const auto good = parse_launch_report("sha256 abcd\n");
    EXPECT_EQ(good.program_sha256, "abcd");
    EXPECT_TRUE(good.error.empty());
    EXPECT_EQ(parse_launch_report("certificate ef\nsha256 abcd\n").certificate_sha256, "ef");
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

/// The same for a WebAssembly service. It needs root, as the agent has it.
class LaunchModule : public Launch {
protected:
    void SetUp() override {
        if (::geteuid() != 0)
            GTEST_SKIP() << "mounting needs root";
        if (tests::has_sanitizer)
            GTEST_SKIP() << "the worker's program is linked statically only without a sanitizer";
        request.module = LaunchRequest::Module{};
        auto& module = *request.module;
        module.path = HOST_RUNNER_SOURCE_DIR "/tests/fixtures/wasm/deeds_wasi.wasm";
        module.sha256 = crypto::to_hex(crypto::sha256_file(module.path).value());
        module.cache_folder = folder / "cache";
        module.root_folder = folder / "root";
        module.worker.memory_bytes = 64 << 20;
        request.user = worker_user("test");
    }
    Outcome run(std::vector<std::string> arguments) {
        request.command = std::move(arguments);
        request.command.insert(request.command.begin(), "deeds");
        return Launch::run();
    }
    /// A folder of the service's user at `target`.
    void mount_volume(const std::string& target) {
        const auto volume = folder / "volume";
        ASSERT_TRUE(make_directories(volume, 0755));
        ASSERT_EQ(::chown(volume.c_str(), request.user->uid, request.user->gid), 0);
        request.mounts.push_back({volume, target, false, false});
    }
};

TEST_F(LaunchModule, becomes_a_worker_and_reports_the_hash_of_the_module) {
    const auto outcome = run({"arguments", "two words"});
    EXPECT_EQ(outcome.output.out, "deeds\narguments\ntwo words\n") << outcome.output.err;
    EXPECT_EQ(outcome.report.program_sha256, request.module->sha256);
    EXPECT_TRUE(outcome.report.error.empty());
    EXPECT_THAT(run({"environment"}).output.out, HasSubstr("GREETING=hello\n"));
    EXPECT_EQ(run({"exit", "7"}).output.status.code, 7);
}

TEST_F(LaunchModule, sees_its_mounts_and_nothing_else) {
    mount_volume("/data");
    ASSERT_TRUE(write_file_atomic(folder / "motd", "welcome", 0644));
    request.mounts.push_back({folder / "motd", "/etc/motd", true, true});
    EXPECT_EQ(run({"copy", "/etc/motd"}).output.out, "welcome");
    EXPECT_EQ(run({"append", "/data/file", "kept"}).output.status.code, 0);
    EXPECT_EQ(run({"copy", "/data/file"}).output.out, "kept");
    EXPECT_EQ(*read_file(folder / "volume/file", 10), "kept");
    const auto root = run({"list", "/"}).output.out;
    EXPECT_TRUE(root == "data\netc\n" || root == "etc\ndata\n") << root;
    for (const auto* path : {"/etc/passwd", "/data/../etc/passwd", "/proc/self/status"})
        EXPECT_THAT(run({"copy", path}).output.err, HasSubstr("No such file")) << path;
    EXPECT_THAT(run({"append", "/file", "x"}).output.err, HasSubstr("Read-only"));
    EXPECT_EQ(run({"append", "/etc/motd", "x"}).output.status.code, 1);
    EXPECT_EQ(*read_file(folder / "motd", 10), "welcome");
}

TEST_F(LaunchModule, does_not_leave_its_volume_by_a_link) {
    mount_volume("/data");
    ASSERT_EQ(::symlink("/etc/passwd", (folder / "volume/absolute").c_str()), 0);
    ASSERT_EQ(::symlink("../../../etc/passwd", (folder / "volume/relative").c_str()), 0);
    for (const auto* path : {"/data/absolute", "/data/relative"})
        EXPECT_EQ(run({"copy", path}).output.status.code, 1) << path;
}

TEST_F(LaunchModule, has_no_files_without_mounts) {
    EXPECT_EQ(run({"list", "/"}).output.status.code, 1);
    EXPECT_THAT(run({"environment"}).output.out, HasSubstr("FD_NAMES=stdin:stdout:stderr\n"));
    mount_volume("/data");
    EXPECT_THAT(run({"environment"}).output.out, HasSubstr("FD_NAMES=stdin:stdout:stderr:/\n"));
}

TEST_F(LaunchModule, is_refused_when_it_is_not_the_one_of_the_manifest) {
    request.module->sha256 = std::string(64, 'a');
    const auto outcome = run({"exit", "0"});
    EXPECT_EQ(outcome.output.status.code, 126);
    EXPECT_THAT(outcome.report.error, HasSubstr("but the manifest names aaaa"));
    EXPECT_TRUE(outcome.report.program_sha256.empty());
}

TEST_F(LaunchModule, that_is_not_valid_is_refused) {
    request.module->path = folder / "broken.wasm";
    ASSERT_TRUE(write_file_atomic(request.module->path, std::string("\0asm\1\0\0\0x", 9)));
    request.module->sha256 = crypto::to_hex(crypto::sha256_file(request.module->path).value());
    const auto outcome = run({"exit", "0"});
    EXPECT_EQ(outcome.output.status.code, 126);
    EXPECT_FALSE(outcome.report.error.empty());
}

TEST_F(LaunchModule, that_cannot_run_reports_why) {
    const std::string fixtures = HOST_RUNNER_SOURCE_DIR "/tests/fixtures/wasm/";
    request.module->path = fixtures + "missing_imports.wasm";
    request.module->sha256 = crypto::to_hex(crypto::sha256_file(request.module->path).value());
    const auto outcome = run({"exit", "0"});
    EXPECT_EQ(outcome.output.status.code, 126);
    EXPECT_THAT(outcome.report.error, HasSubstr("import"));
    EXPECT_EQ(outcome.output.err, "");
}

TEST_F(LaunchModule, keeps_the_certificate_that_it_made_and_gives_the_module_none_of_it) {
    request.module->tls.emplace();
    request.module->tls->store = folder / "tls/site.pem";
    request.module->tls->name = "site";
    const auto first = run({"environment"});
    EXPECT_EQ(first.output.status.code, 0) << first.report.error;
    EXPECT_EQ(first.report.certificate_sha256.size(), 64U);
    EXPECT_THAT(first.output.out, testing::Not(HasSubstr("PRIVATE")));
    EXPECT_EQ(run({"exit", "0"}).report.certificate_sha256, first.report.certificate_sha256);
    struct stat status {};
    ASSERT_EQ(::stat(request.module->tls->store.c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777U, 0600U);
    ASSERT_EQ(::stat((folder / "tls").c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777U, 0700U);
}

TEST_F(LaunchModule, has_one_certificate_however_many_start_at_once) {
    request.module->tls.emplace();
    request.module->tls->store = folder / "tls/site.pem";
    request.module->tls->name = "site";
    static_cast<void>(run({"exit", "0"})); // compiles
    ASSERT_TRUE(remove_file(request.module->tls->store));
    std::set<std::string> certificates;
    std::mutex mutex;
    std::vector<std::thread> replicas;
    request.command = {"deeds", "exit", "0"};
    for (int i = 0; i < 4; ++i)
        replicas.emplace_back([this, &mutex, &certificates] {
            const auto outcome = Launch::run();
            const std::lock_guard lock(mutex);
            certificates.insert(outcome.report.certificate_sha256);
        });
    for (auto& replica : replicas)
        replica.join();
    EXPECT_EQ(certificates.size(), 1U);
    EXPECT_EQ(certificates.begin()->size(), 64U);
}

TEST_F(LaunchModule, takes_the_certificate_that_it_is_given) {
    const std::array names{std::string("site")};
    const auto made = crypto::make_self_signed_certificate(names, 1h);
    ASSERT_TRUE(made);
    const auto other = crypto::make_self_signed_certificate(names, 1h);
    ASSERT_TRUE(other);
    ASSERT_TRUE(write_file_atomic(folder / "site.pem", made->certificate_pem));
    ASSERT_TRUE(write_file_atomic(folder / "key.pem", made->private_key_pem));
    ASSERT_TRUE(write_file_atomic(folder / "other.pem", other->private_key_pem));
    request.module->tls =
        LaunchRequest::Module::Tls{folder / "site.pem", folder / "key.pem", "", ""};
    EXPECT_EQ(run({"exit", "0"}).report.certificate_sha256,
              *crypto::certificate_fingerprint(made->certificate_pem));
    request.module->tls->key_path = folder / "other.pem";
    const auto outcome = run({"exit", "0"});
    EXPECT_EQ(outcome.output.status.code, 126);
    EXPECT_FALSE(outcome.report.error.empty());
}

TEST_F(LaunchModule, is_compiled_once) {
    static_cast<void>(run({"exit", "0"}));
    std::vector<std::filesystem::path> entries;
    for (const auto& entry : std::filesystem::directory_iterator(request.module->cache_folder))
        entries.push_back(entry.path());
    ASSERT_EQ(entries.size(), 1U);
    const auto made = std::filesystem::last_write_time(entries[0]);
    EXPECT_EQ(run({"exit", "0"}).output.status.code, 0);
    EXPECT_EQ(std::filesystem::last_write_time(entries[0]), made);
}

} // namespace
} // namespace host_runner::agent

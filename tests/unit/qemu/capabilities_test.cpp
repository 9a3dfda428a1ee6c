// SPDX-License-Identifier: Apache-2.0
#include "host_runner/qemu/capabilities.hpp"

#include <cstdlib>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "fakes/temporary_directory.hpp"
#include "host_runner/base/files.hpp"

namespace host_runner::qemu {
namespace {

using testing::HasSubstr;

/// What QEMU 11.1.3 and 7.2.22 of Debian answer, cut to what matters; ids are those of the probe.
const std::string head = R"({"QMP": {"version": {}, "capabilities": ["oob"]}}
{"return": {}, "id": 1}
)";
const std::string new_version =
    R"({"return": {"qemu": {"micro": 3, "minor": 1, "major": 11}, "package": "Debian 1:11.1"}, "id": 2}
)";
const std::string new_types = R"({"return": [{"name": "type"}, {"name": "mrconfigid"}, )"
                              R"({"name": "quote-generation-socket"}], "id": 3}
{"return": [{"name": "type"}], "id": 4}
{"return": [{"name": "guest-cid"}], "id": 5}
{"return": [{"name": "fsdev"}], "id": 6}
)";
const std::string new_run_with = R"({"return": [{"parameters": [{"name": "async-teardown"}, )"
                                 R"({"name": "exit-with-parent"}], "option": "run-with"}], "id": 7}
)";
const std::string tail = R"({"event": "SHUTDOWN", "data": {"reason": "host-qmp-quit"}}
{"return": {}, "id": 8}
)";
const std::string new_qemu = head + new_version + new_types + new_run_with + tail;

const std::string old_qemu = head +
                             R"({"return": {"qemu": {"micro": 22, "minor": 2, "major": 7}, )"
                             R"("package": ""}, "id": 2}
{"id": 3, "error": {"class": "DeviceNotFound", "desc": "Class 'tdx-guest' not found"}}
{"id": 4, "error": {"class": "DeviceNotFound", "desc": "Class 'iommufd' not found"}}
{"id": 5, "error": {"class": "DeviceNotFound", "desc": "Class 'vhost-vsock-pci' not found"}}
{"id": 6, "error": {"class": "DeviceNotFound", "desc": "Class 'virtio-9p-pci' not found"}}
{"id": 7, "error": {"class": "GenericError", "desc": "invalid option name: run-with"}}
)" + tail;

class CountingLauncher final : public ProcessLauncher {
public:
    Result<ChildProcess> launch(const ProcessSpec& spec) override {
        ++launches;
        return real_.launch(spec);
    }
    int launches = 0;

private:
    ForkExecLauncher real_;
};

class Probe : public testing::Test {
protected:
    /// A program that answers thus, whatever it is asked.
    void install(const std::string& answers, const std::string& more = "") {
        ASSERT_TRUE(write_file_atomic(program, "#!/bin/sh\ncat >/dev/null\ncat <<'END'\n" +
                                                   answers + "END\n" + more));
        ASSERT_EQ(::chmod(program.c_str(), 0755), 0);
    }
    Result<Capabilities> probe() {
        return probe_capabilities(launcher, program, cache);
    }
    Error error() {
        const auto result = probe();
        EXPECT_FALSE(result);
        return result ? Error{} : result.error();
    }

    tests::TemporaryDirectory folder;
    std::string program = folder / "qemu";
    std::string cache = folder / "state/cache";
    CountingLauncher launcher;
};

// --- what is read from the answers --------------------------------------------------------------

TEST_F(Probe, a_new_qemu_has_everything) {
    install(new_qemu);
    const auto result = probe();
    ASSERT_TRUE(result) << result.error().describe();
    EXPECT_EQ(result->path, program);
    EXPECT_EQ(result->version, "11.1.3");
    EXPECT_EQ(result->package, "Debian 1:11.1");
    EXPECT_TRUE(result->tdx_guest);
    EXPECT_TRUE(result->tdx_quote_socket);
    EXPECT_TRUE(result->run_with_exit_with_parent);
    EXPECT_TRUE(result->json_netdev);
    EXPECT_TRUE(result->iommufd);
    EXPECT_TRUE(result->vhost_vsock);
    EXPECT_TRUE(result->virtio_9p);
    EXPECT_TRUE(result->at_least(11, 1));
    EXPECT_FALSE(result->at_least(11, 2));
}

TEST_F(Probe, an_old_qemu_lacks_what_it_does_not_name) {
    install(old_qemu);
    const auto result = probe();
    ASSERT_TRUE(result) << result.error().describe();
    EXPECT_EQ(result->version, "7.2.22");
    EXPECT_FALSE(result->tdx_guest);
    EXPECT_FALSE(result->tdx_quote_socket);
    EXPECT_FALSE(result->run_with_exit_with_parent);
    EXPECT_TRUE(result->json_netdev);
    EXPECT_FALSE(result->iommufd);
    EXPECT_FALSE(result->vhost_vsock);
    EXPECT_FALSE(result->virtio_9p);
}

TEST_F(Probe, run_with_without_exit_with_parent_does_not_count) {
    install(head + new_version + new_types +
            "{\"return\": [{\"parameters\": [{\"name\": \"user\"}], \"option\": \"run-with\"}], "
            "\"id\": 7}\n" +
            tail);
    EXPECT_FALSE(probe().value().run_with_exit_with_parent);
}

TEST_F(Probe, older_than_7_2_is_unsupported) {
    install(head +
            "{\"return\": {\"qemu\": {\"micro\": 0, \"minor\": 1, \"major\": 7}}, \"id\": 2}\n" +
            new_types + new_run_with + tail);
    const auto problem = error();
    EXPECT_EQ(problem.code, ErrorCode::unsupported);
    EXPECT_THAT(problem.message, HasSubstr("7.1.0"));
    EXPECT_THAT(problem.hint, HasSubstr("--qemu"));
}

// --- programs that are no QEMU ------------------------------------------------------------------

TEST_F(Probe, a_missing_program_names_the_package) {
    auto problem = error();
    EXPECT_EQ(problem.code, ErrorCode::not_found);
    EXPECT_THAT(problem.message, HasSubstr(program));
    EXPECT_THAT(problem.hint, HasSubstr("apt install qemu-system-x86"));
    program = "no-such-qemu-system";
    problem = error();
    EXPECT_EQ(problem.code, ErrorCode::not_found);
    EXPECT_THAT(problem.message, HasSubstr("in PATH"));
}

TEST_F(Probe, a_program_that_may_not_be_run_says_so) {
    ASSERT_TRUE(write_file_atomic(program, "#!/bin/sh\n"));
    EXPECT_EQ(error().code, ErrorCode::permission_denied);
}

TEST_F(Probe, a_program_that_says_nothing_is_no_qemu) {
    program = "/bin/true";
    const auto problem = error();
    EXPECT_EQ(problem.code, ErrorCode::corrupt_data);
    EXPECT_THAT(problem.message, HasSubstr("exit code 0"));
}

TEST_F(Probe, a_program_that_says_something_else_is_no_qemu) {
    install("hello\n");
    EXPECT_EQ(error().code, ErrorCode::corrupt_data);
}

TEST_F(Probe, the_last_line_of_a_qemu_that_fails_is_told) {
    install(head, "echo 'qemu: could not load PC BIOS' >&2; exit 1\n");
    const auto problem = error();
    EXPECT_EQ(problem.code, ErrorCode::corrupt_data);
    EXPECT_THAT(problem.message, HasSubstr("could not load PC BIOS"));
}

TEST_F(Probe, a_version_that_is_none_makes_no_sense) {
    install(head + "{\"return\": {\"qemu\": 11}, \"id\": 2}\n" + new_types + new_run_with + tail);
    EXPECT_EQ(error().code, ErrorCode::corrupt_data);
}

// --- remembering --------------------------------------------------------------------------------

TEST_F(Probe, the_second_time_nothing_is_started) {
    install(new_qemu);
    const auto first = probe();
    const auto second = probe();
    ASSERT_TRUE(first && second);
    EXPECT_EQ(launcher.launches, 1);
    EXPECT_EQ(second->path, first->path);
    EXPECT_EQ(second->version, first->version);
    EXPECT_EQ(second->package, first->package);
    EXPECT_TRUE(second->tdx_guest && second->tdx_quote_socket && second->json_netdev &&
                second->run_with_exit_with_parent && second->iommufd && second->vhost_vsock &&
                second->virtio_9p);
}

TEST_F(Probe, what_an_old_qemu_lacks_is_remembered_too) {
    install(old_qemu);
    ASSERT_TRUE(probe());
    const auto second = probe();
    EXPECT_EQ(launcher.launches, 1);
    EXPECT_FALSE(second->tdx_guest || second->iommufd || second->run_with_exit_with_parent);
}

TEST_F(Probe, another_binary_at_the_same_path_is_asked_anew) {
    install(old_qemu);
    ASSERT_TRUE(probe());
    install(new_qemu);
    EXPECT_EQ(probe().value().version, "11.1.3");
    EXPECT_EQ(launcher.launches, 2);
}

TEST_F(Probe, a_broken_cache_is_asked_anew_and_mended) {
    install(new_qemu);
    ASSERT_TRUE(probe());
    const auto files = list_directory(cache).value();
    ASSERT_EQ(files.size(), 1U);
    const auto file = join_path(cache, files[0]);
    for (const auto* text : {"", "{", "[]", "{\"format\": 1}", "\xff"}) {
        ASSERT_TRUE(write_file_atomic(file, text));
        EXPECT_EQ(probe().value().version, "11.1.3") << text;
    }
    EXPECT_EQ(launcher.launches, 6);
    ASSERT_TRUE(probe());
    EXPECT_EQ(launcher.launches, 6);
}

TEST_F(Probe, a_remembered_flag_of_another_type_is_asked_anew) {
    install(new_qemu);
    ASSERT_TRUE(probe());
    const auto file = join_path(cache, list_directory(cache).value().at(0));
    auto text = read_file(file, 65536).value();
    const std::string flag = "\"iommufd\":true";
    text.replace(text.find(flag), flag.size(), "\"iommufd\":1");
    ASSERT_TRUE(write_file_atomic(file, text));
    EXPECT_TRUE(probe().value().iommufd);
    EXPECT_EQ(launcher.launches, 2);
}

TEST_F(Probe, a_cache_that_cannot_be_written_is_no_error) {
    install(new_qemu);
    cache = program + "/cache"; // below a file
    EXPECT_TRUE(probe());
}

TEST_F(Probe, without_a_cache_folder_nothing_is_remembered) {
    install(new_qemu);
    cache.clear();
    ASSERT_TRUE(probe());
    ASSERT_TRUE(probe());
    EXPECT_EQ(launcher.launches, 2);
}

TEST_F(Probe, what_is_too_old_is_refused_from_the_cache_too) {
    install(head +
            "{\"return\": {\"qemu\": {\"micro\": 0, \"minor\": 2, \"major\": 5}}, \"id\": 2}\n" +
            new_types + new_run_with + tail);
    EXPECT_EQ(error().code, ErrorCode::unsupported);
    EXPECT_EQ(error().code, ErrorCode::unsupported);
    EXPECT_EQ(launcher.launches, 1);
}

// --- a real QEMU --------------------------------------------------------------------------------

TEST_F(Probe, a_real_qemu_answers) {
    program = "qemu-system-x86_64";
    const auto result = probe();
    if (!result && result.error().code == ErrorCode::not_found)
        GTEST_SKIP() << "no qemu-system-x86_64 in PATH";
    ASSERT_TRUE(result) << result.error().describe();
    EXPECT_TRUE(result->path.starts_with('/')) << result->path;
    EXPECT_GE(result->major, 7);
    EXPECT_TRUE(result->json_netdev);
}

} // namespace
} // namespace host_runner::qemu

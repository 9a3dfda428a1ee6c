// SPDX-License-Identifier: Apache-2.0
#include "host_runner/cli/vm_options.hpp"

#include <filesystem>

#include <gmock/gmock.h>

#include "fakes/temporary_directory.hpp"
#include "host_runner/base/files.hpp"
#include "host_runner/base/units.hpp"
#include "host_runner/cli/command_line.hpp"

namespace host_runner::cli {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using tests::TemporaryDirectory;

Result<spec::VmSpec> spec_of(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "run");
    const auto invocation = parse_command_line(arguments).value();
    const auto places = config::Places::load({"", ""}, [](const std::string&) {
                            return std::optional<std::string>();
                        }).value();
    HR_TRY(const auto settings, config::Settings::settle("run", places, invocation.options));
    return make_vm_spec(settings);
}

spec::VmSpec good(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"-i", "image"});
    return spec_of(arguments).value();
}

Error refused(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"-i", "image"});
    const auto spec = spec_of(arguments);
    EXPECT_FALSE(spec);
    return spec ? Error{} : spec.error();
}

TEST(VmOptions, have_the_defaults_that_users_know) {
    const auto spec = good({});
    EXPECT_EQ(spec.image_path, "image");
    EXPECT_EQ(spec.cpus, 12U);
    EXPECT_EQ(spec.memory_bytes, 32 * gib);
    EXPECT_EQ(spec.disk_bytes, 500 * gib);
    EXPECT_EQ(spec.tee, spec::Tee::tdx);
    EXPECT_EQ(spec.accelerator, spec::AcceleratorChoice::automatic);
    EXPECT_EQ(spec.qemu_path, "qemu-system-x86_64");
    EXPECT_EQ(spec.key_provider.kind, spec::KeyProviderKind::local);
    EXPECT_EQ(spec.network.mode, spec::NetworkMode::user);
    EXPECT_FALSE(spec.egress.has_value());
    EXPECT_FALSE(spec.qgs.has_value());
    EXPECT_FALSE(spec.restart.on_failure);
    EXPECT_EQ(spec.stop_timeout.count(), 0);
}

TEST(VmOptions, read_every_option) {
    const auto spec = good({"-c",           "hello.yaml",
                            "-u",           "8",
                            "-m",           "8192",
                            "-d",           "1T",
                            "-p",           "tcp:0.0.0.0:443:443,tcp::10024:22",
                            "-p",           "udp::0:53",
                            "--name",       "web",
                            "--tee",        "none",
                            "--accel",      "tcg",
                            "--qemu",       "/opt/qemu",
                            "--net",        "user",
                            "--egress",     "off",
                            "--append",     "quiet",
                            "--env-file",   "web.env",
                            "--firmware",   "--restart",
                            "on-failure:3", "--stop-timeout",
                            "90s",          "--key-provider",
                            "none"});
    EXPECT_EQ(spec.compose_path, "hello.yaml");
    EXPECT_EQ(spec.cpus, 8U);
    EXPECT_EQ(spec.memory_bytes, 8 * gib);
    EXPECT_EQ(spec.disk_bytes, tib);
    ASSERT_EQ(spec.ports.size(), 3U);
    EXPECT_EQ(spec::format_port_mapping(spec.ports[2]), "udp:127.0.0.1:0:53");
    EXPECT_EQ(spec.name, "web");
    EXPECT_EQ(spec.tee, spec::Tee::none);
    EXPECT_EQ(spec.accelerator, spec::AcceleratorChoice::tcg);
    EXPECT_EQ(spec.qemu_path, "/opt/qemu");
    EXPECT_EQ(spec.egress, std::optional<bool>(false));
    EXPECT_EQ(spec.append, "quiet");
    EXPECT_EQ(spec.env_file, "web.env");
    EXPECT_TRUE(spec.firmware);
    EXPECT_EQ(spec.restart, (spec::RestartRule{true, 3}));
    EXPECT_EQ(spec.stop_timeout, std::chrono::seconds(90));
    EXPECT_EQ(spec.key_provider.kind, spec::KeyProviderKind::none);
    EXPECT_EQ(good({"--qgs", "vsock:2:4051"}).qgs->port, 4051U);
}

TEST(VmOptions, need_an_image) {
    const auto spec = spec_of({});
    ASSERT_FALSE(spec);
    EXPECT_EQ(spec.error().code, ErrorCode::invalid_argument);
    EXPECT_THAT(spec.error().describe(), HasSubstr("--image-path is missing"));
}

TEST(VmOptions, name_option_value_rule_and_example_of_bad_input) {
    const std::vector<std::pair<std::vector<std::string>, std::vector<std::string>>> cases{
        {{"-m", "lots"}, {"--memory", "'lots'", "32G"}},
        {{"-d", "0"}, {"--disk", "'0'", "above zero"}},
        {{"-u", "0"}, {"--cpus", "'0'", "from 1 to 4096"}},
        {{"-p", "tcp:80"}, {"--ports", "'tcp:80'", "tcp::8080:80"}},
        {{"-p", "tcp::70000:80"}, {"--ports", "'70000'", "65535"}},
        {{"-g", "nonsense"}, {"--gpus", "'nonsense'", "0000:b8:00.0"}},
        {{"--name", "a/b"}, {"--name", "'a/b'", "web-1"}},
        {{"--qgs", "nowhere"}, {"--qgs", "'nowhere'", "vsock:2:4050"}},
        {{"--key-provider", "vault"}, {"--key-provider", "'vault'", "relay=10.0.0.5:9000"}},
        {{"--net", "tap"}, {"--net", "'tap'", "bridge=br0"}},
        {{"--host-service", "5432"}, {"--host-service", "'5432'", "tcp:5432"}},
        {{"--restart", "always"}, {"--restart", "'always'", "on-failure:3"}},
        {{"--stop-timeout", "0"}, {"--stop-timeout", "'0'", "90s"}},
        {{"--tee", "sgx"}, {"--tee", "'sgx'", "tdx, none", "--tee none"}},
        {{"--net", "none", "-p", "tcp::1234:80"}, {"--net none", "tcp:127.0.0.1:1234:80"}},
    };
    for (const auto& [arguments, words] : cases) {
        const auto error = refused(arguments);
        EXPECT_EQ(error.code, ErrorCode::invalid_argument) << error.describe();
        for (const auto& word : words)
            EXPECT_THAT(error.describe(), HasSubstr(word));
        EXPECT_THAT(error.describe(), testing::Not(HasSubstr("\n")));
    }
}

TEST(VmOptions, place_the_vm_on_the_host) {
    const auto spec =
        good({"--pin-numa", "--numa-node", "1", "--hugepage", "--hugepage-size", "2M"});
    EXPECT_TRUE(spec.pin_numa);
    EXPECT_EQ(spec.numa_node, 1U);
    EXPECT_TRUE(spec.hugepages);
    EXPECT_EQ(spec.hugepage_bytes, 2 * mib);
    EXPECT_EQ(good({"--hugepage"}).hugepage_bytes, 0U);
    EXPECT_EQ(refused({"--pin-numa", "--numa-node", "1024"}).code, ErrorCode::invalid_argument);
}

TEST(VmOptions, name_gpus_or_take_all) {
    EXPECT_EQ(good({"-g", "b8:00.0,0000:b9:00.0"}).gpus.size(), 2U);
    EXPECT_FALSE(good({"-g", "b8:00.0"}).all_gpus);
    EXPECT_TRUE(good({"-g", "all"}).all_gpus);
    EXPECT_EQ(refused({"-g", "all", "-g", "b8:00.0"}).code, ErrorCode::invalid_argument);
}

TEST(VmOptions, refuse_what_is_not_in_this_version_by_a_sentence) {
    const auto error = refused({"--key-provider", "relay=h:1"});
    EXPECT_EQ(error.code, ErrorCode::unsupported);
    EXPECT_THAT(error.message, HasSubstr("is not in this version yet"));
}

TEST(VmOptions, say_what_the_guest_reaches) {
    EXPECT_THAT(good({"--host-service", "tcp:5432,tcp:80"}).host_services, ElementsAre(5432, 80));
    EXPECT_EQ(good({"--net", "bridge=br0"}).network.bridge, "br0");
}

TEST(VmOptions, take_the_older_words_for_the_key_provider) {
    EXPECT_EQ(good({"--no-local-key-provider"}).key_provider.kind, spec::KeyProviderKind::none);
    EXPECT_EQ(good({"--local-key-provider=false"}).key_provider.kind, spec::KeyProviderKind::none);
    EXPECT_EQ(good({"--local-key-provider"}).key_provider.kind, spec::KeyProviderKind::local);
}

TEST(VmOptions, refuse_two_words_for_the_key_provider_that_contradict) {
    EXPECT_THAT(refused({"--no-local-key-provider", "--key-provider", "local"}).message,
                HasSubstr("--no-local-key-provider contradicts --key-provider local"));
    EXPECT_THAT(refused({"--local-key-provider", "--key-provider", "none"}).message,
                HasSubstr("--local-key-provider contradicts"));
}

/// The current folder for as long as it lives.
class CurrentFolder {
public:
    explicit CurrentFolder(const std::string& path) : before_(std::filesystem::current_path()) {
        std::filesystem::current_path(path);
    }
    CurrentFolder(const CurrentFolder&) = delete;
    CurrentFolder& operator=(const CurrentFolder&) = delete;
    ~CurrentFolder() {
        std::filesystem::current_path(before_);
    }

private:
    std::filesystem::path before_;
};

TEST(VmOptions, take_the_compose_file_of_the_current_folder_only_when_it_is_there) {
    const TemporaryDirectory directory;
    const CurrentFolder current(directory.path());
    EXPECT_FALSE(good({}).compose_path.has_value());
    ASSERT_TRUE(write_file_atomic(directory / "compose.yaml", "services: {}\n"));
    EXPECT_EQ(good({}).compose_path, "compose.yaml");
}

TEST(VmOptions, keep_a_compose_file_that_was_asked_for_even_when_it_is_missing) {
    EXPECT_EQ(good({"-c", "missing.yaml"}).compose_path, "missing.yaml");
}

} // namespace
} // namespace host_runner::cli

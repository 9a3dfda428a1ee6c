// SPDX-License-Identifier: Apache-2.0
#include "host_runner/instance/delivery.hpp"

#include <sys/stat.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "fakes/instance_folders.hpp"
#include "host_runner/base/units.hpp"
#include "host_runner/crypto/digest.hpp"

namespace host_runner::instance {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

image::Image dstack_image(image::Version version) {
    image::Image image;
    image.name = "dstack-0.0.0";
    image.guest = image::Guest::dstack;
    image.version = version;
    image.rootfs_hash = "abcd";
    image.os_image_hash = "ef01";
    return image;
}

image::Image our_image() {
    auto image = dstack_image({1, 0, 0});
    image.guest = image::Guest::host_runner;
    image.name = "native";
    return image;
}

/// Counts what is started, and starts it.
class CountingLauncher final : public ProcessLauncher {
public:
    Result<ChildProcess> launch(const ProcessSpec& spec) override {
        programs.push_back(spec.argv.front());
        return real_.launch(spec);
    }
    std::vector<std::string> programs;

private:
    ForkExecLauncher real_;
};

class Delivery : public testing::Test {
protected:
    void SetUp() override {
        ASSERT_TRUE(make_directories(paths_.directory));
    }

    static void write(const std::string& path, const std::string& bytes) {
        ASSERT_TRUE(write_file_atomic(path, bytes));
    }

    /// A spec whose compose file holds `text`.
    spec::VmSpec with_compose(const std::string& text) {
        write(dir_ / "hello.yaml", text);
        spec::VmSpec spec;
        spec.compose_path = dir_ / "hello.yaml";
        return spec;
    }

    const tests::TemporaryDirectory dir_;
    const InstancePaths paths_{dir_ / "i"};
    const std::string cache_ = dir_ / "cache";
    CountingLauncher launcher_;
};

// ---- app-compose.json --------------------------------------------------------------------------

TEST_F(Delivery, our_guest_gets_the_resolved_compose_and_its_hash) {
    auto spec = with_compose("services: {web: {command: [/bin/true], ports: [\"8080:80\"]}}\n");
    const auto files = make_guest_files(spec, our_image());
    ASSERT_TRUE(files) << files.error().describe();
    const auto app = protocol::decode_app_compose(files->app_compose);
    ASSERT_TRUE(app) << app.error().describe();
    EXPECT_EQ(app->name, "hello");
    EXPECT_TRUE(app->local_key_provider);
    EXPECT_EQ(files->compose_hash, crypto::sha256(files->app_compose));
    ASSERT_EQ(files->ports.size(), 1U);
    EXPECT_EQ(files->ports[0].host_port, 8080);
    EXPECT_THAT(files->notices, IsEmpty());
}

TEST_F(Delivery, without_a_compose_file_our_guest_gets_no_services_and_a_notice) {
    const auto files = make_guest_files(spec::VmSpec{}, our_image());
    ASSERT_TRUE(files) << files.error().describe();
    EXPECT_THAT(protocol::decode_app_compose(files->app_compose)->services, IsEmpty());
    EXPECT_THAT(files->notices, ElementsAre(HasSubstr("no services")));
}

TEST_F(Delivery, public_variables_go_into_app_compose_and_that_is_said) {
    auto spec = with_compose("services: {web: {command: [/bin/true]}}\n");
    write(dir_ / "values.env", "A=1\n");
    spec.env_file = dir_ / "values.env";
    const auto files = make_guest_files(spec, our_image());
    ASSERT_TRUE(files);
    EXPECT_EQ(protocol::decode_app_compose(files->app_compose)->services[0].environment.at("A"),
              "1");
    EXPECT_THAT(files->notices, ElementsAre(HasSubstr("no secrets")));
}

TEST_F(Delivery, a_container_image_is_refused_for_our_guest) {
    const auto spec = with_compose("services: {web: {image: nginx}}\n");
    const auto files = make_guest_files(spec, our_image());
    ASSERT_FALSE(files);
    EXPECT_EQ(files.error().code, ErrorCode::unsupported);
}

TEST_F(Delivery, a_missing_compose_file_is_an_error) {
    spec::VmSpec spec;
    spec.compose_path = dir_ / "none.yaml";
    EXPECT_EQ(make_guest_files(spec, our_image()).error().code, ErrorCode::not_found);
}

TEST_F(Delivery, a_dstack_guest_gets_exactly_these_bytes) {
    auto spec = with_compose("services:\n  web: {image: nginx}\n");
    spec.key_provider.kind = spec::KeyProviderKind::none;
    const auto files = make_guest_files(spec, dstack_image({0, 5, 7}));
    ASSERT_TRUE(files) << files.error().describe();
    EXPECT_EQ(files->app_compose,
              R"({"manifest_version":2,"name":"hello","runner":"docker-compose",)"
              R"("docker_compose_file":"services:\n  web: {image: nginx}\n","kms_enabled":false,)"
              R"("gateway_enabled":false,"local_key_provider_enabled":false,"public_logs":false,)"
              R"("public_sysinfo":false,"secure_time":false,"no_instance_id":false})");
    EXPECT_THAT(files->ports, IsEmpty());
}

TEST_F(Delivery, a_dstack_guest_without_a_compose_file_runs_a_script_that_does_nothing) {
    const auto files = make_guest_files(spec::VmSpec{}, dstack_image({0, 5, 7}));
    ASSERT_TRUE(files);
    const auto app = json::parse(files->app_compose);
    EXPECT_EQ(app["runner"], "bash");
    EXPECT_EQ(app["bash_script"], "true\n");
    EXPECT_EQ(app["local_key_provider_enabled"], true);
    EXPECT_THAT(files->notices, ElementsAre(HasSubstr("no services")));
}

TEST_F(Delivery, an_env_file_is_refused_for_a_dstack_guest) {
    auto spec = with_compose("services: {web: {image: nginx}}\n");
    spec.env_file = dir_ / "values.env";
    EXPECT_EQ(make_guest_files(spec, dstack_image({0, 5, 7})).error().code, ErrorCode::unsupported);
}

TEST_F(Delivery, an_app_compose_above_the_guests_limit_is_refused) {
    // Each quote takes two bytes in JSON.
    const auto spec =
        with_compose("services: {web: {image: nginx}}\n#" + std::string(200UL * 1024, '"'));
    const auto files = make_guest_files(spec, dstack_image({0, 5, 7}));
    ASSERT_FALSE(files);
    EXPECT_THAT(files.error().message, HasSubstr("at most 262144"));
}

// ---- .sys-config.json --------------------------------------------------------------------------

struct Generation {
    image::Version version;
    const char* file;
    std::vector<std::string> members;
};

class SysConfig : public testing::TestWithParam<Generation> {};

TEST_P(SysConfig, has_the_members_of_its_generation) {
    const SysConfigInput input{.host_api_url = "vsock://2:10000/api",
                               .cpus = 4,
                               .memory_bytes = 2 * gib,
                               .qemu_version = "9.2.1",
                               .num_gpus = 1,
                               .num_nvswitches = 0,
                               .kms_urls = {"https://kms"}};
    const auto file = make_sys_config(dstack_image(GetParam().version), input);
    ASSERT_TRUE(file) << file.error().describe();
    EXPECT_EQ(file->name, GetParam().file);
    std::vector<std::string> members;
    const auto object = json::parse(file->bytes);
    for (const auto& [key, value] : object.items())
        members.push_back(key);
    auto expected = GetParam().members;
    std::sort(expected.begin(), expected.end());
    EXPECT_EQ(members, expected);
    EXPECT_EQ(object["host_api_url"], "vsock://2:10000/api");
}

INSTANTIATE_TEST_SUITE_P(
    Generations, SysConfig,
    testing::Values(Generation{{0, 3, 3},
                               "config.json",
                               {"rootfs_hash", "kms_url", "tproxy_url", "pccs_url",
                                "docker_registry", "host_api_url"}},
                    Generation{{0, 3, 6},
                               "config.json",
                               {"rootfs_hash", "kms_url", "tproxy_url", "pccs_url",
                                "docker_registry", "host_api_url"}},
                    Generation{{0, 4, 0},
                               ".sys-config.json",
                               {"rootfs_hash", "kms_urls", "tproxy_urls", "pccs_url",
                                "docker_registry", "host_api_url"}},
                    Generation{{0, 4, 1},
                               ".sys-config.json",
                               {"rootfs_hash", "kms_urls", "tproxy_urls", "pccs_url",
                                "docker_registry", "host_api_url"}},
                    Generation{{0, 4, 2},
                               ".sys-config.json",
                               {"kms_urls", "gateway_urls", "pccs_url", "docker_registry",
                                "host_api_url"}},
                    Generation{{0, 5, 0},
                               ".sys-config.json",
                               {"kms_urls", "gateway_urls", "pccs_url", "docker_registry",
                                "host_api_url", "vm_config"}},
                    Generation{{0, 5, 11},
                               ".sys-config.json",
                               {"kms_urls", "gateway_urls", "pccs_url", "docker_registry",
                                "host_api_url", "vm_config"}},
                    Generation{{0, 6, 0},
                               ".sys-config.json",
                               {"kms_urls", "gateway_urls", "pccs_url", "docker_registry",
                                "host_api_url", "vm_config", "collateral_urls"}}),
    [](const auto& test_info) {
        const auto& version = test_info.param.version;
        return "v" + std::to_string(version.major) + "_" + std::to_string(version.minor) + "_" +
               std::to_string(version.patch);
    });

TEST(SysConfigVmConfig, is_json_text_in_a_string) {
    const auto file = make_sys_config(dstack_image({0, 5, 6}), {.host_api_url = "http://x/api",
                                                                .cpus = 4,
                                                                .memory_bytes = 2 * gib,
                                                                .qemu_version = "9.2.1",
                                                                .num_gpus = 1,
                                                                .num_nvswitches = 2,
                                                                .kms_urls = {}});
    ASSERT_TRUE(file);
    EXPECT_EQ(json::parse(file->bytes)["vm_config"],
              R"({"spec_version":1,"os_image_hash":"ef01","cpu_count":4,"memory_size":2147483648,)"
              R"("qemu_version":"9.2.1","num_gpus":1,"num_nvswitches":2,"image":"dstack-0.0.0",)"
              R"("host_share_mode":"vhd"})");
}

TEST(SysConfigVmConfig, names_no_share_mode_before_the_share_disk) {
    const auto file = make_sys_config(dstack_image({0, 5, 5}), {.host_api_url = "http://x/api",
                                                                .cpus = 4,
                                                                .memory_bytes = 2 * gib,
                                                                .qemu_version = "",
                                                                .num_gpus = 0,
                                                                .num_nvswitches = 0,
                                                                .kms_urls = {}});
    ASSERT_TRUE(file);
    EXPECT_EQ(json::parse(file->bytes)["vm_config"].get<std::string>().find("host_share_mode"),
              std::string::npos);
}

TEST(SysConfigVmConfig, our_guest_needs_no_address_of_the_host_api) {
    EXPECT_TRUE(make_sys_config(our_image(), {}));
}

// ---- app/ and the share disk -------------------------------------------------------------------

TEST_F(Delivery, the_app_folder_holds_what_the_guest_reads) {
    write(dir_ / "page", "abc");
    const auto spec = with_compose("services: {web: {command: x, volumes: [\"./page:/a\"]}}\n");
    const auto files = make_guest_files(spec, our_image()).value();
    write(paths_.instance_info(), "{\"app_id\":\"00\"}");
    ASSERT_TRUE(write_app_folder(paths_, files, {".sys-config.json", "{}"}, our_image()));
    EXPECT_THAT(list_directory(paths_.app()).value(),
                ElementsAre(".instance_info", ".sys-config.json", "app-compose.json", "files"));
    EXPECT_EQ(read_file(paths_.app() + "/app-compose.json", 1 << 20).value(), files.app_compose);
    EXPECT_EQ(read_file(paths_.app() + "/files/" + crypto::sha256_hex("abc"), 100).value(), "abc");
    struct stat status {};
    ASSERT_EQ(::stat(paths_.app().c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777U, 0700U);
}

TEST_F(Delivery, the_app_folder_is_made_anew) {
    const auto files = make_guest_files(spec::VmSpec{}, our_image()).value();
    const NamedFile sys_config{".sys-config.json", "{}"};
    ASSERT_TRUE(write_app_folder(paths_, files, sys_config, our_image()));
    write(paths_.app() + "/stale", "x");
    ASSERT_TRUE(write_app_folder(paths_, files, sys_config, our_image()));
    EXPECT_THAT(list_directory(paths_.app()).value(),
                ElementsAre(".sys-config.json", "app-compose.json"));
}

TEST_F(Delivery, guests_before_0_4_get_a_folder_for_certificates) {
    const auto image = dstack_image({0, 3, 3});
    const auto files = make_guest_files(spec::VmSpec{}, image).value();
    ASSERT_TRUE(write_app_folder(paths_, files, {"config.json", "{}"}, image));
    EXPECT_THAT(list_directory(paths_.app()).value(),
                ElementsAre("app-compose.json", "certs", "config.json"));
}

TEST_F(Delivery, a_file_that_changed_since_it_was_hashed_is_refused) {
    write(dir_ / "page", "abc");
    const auto spec = with_compose("services: {web: {command: x, volumes: [\"./page:/a\"]}}\n");
    const auto files = make_guest_files(spec, our_image()).value();
    write(dir_ / "page", "abd");
    const auto written = write_app_folder(paths_, files, {".sys-config.json", "{}"}, our_image());
    ASSERT_FALSE(written);
    EXPECT_EQ(written.error().code, ErrorCode::corrupt_data);
    EXPECT_THAT(written.error().message, HasSubstr("page"));
}

TEST_F(Delivery, the_share_disk_holds_the_app_folder_under_its_label) {
    write(dir_ / "page", "abc");
    const auto spec = with_compose("services: {web: {command: x, volumes: [\"./page:/a\"]}}\n");
    const auto files = make_guest_files(spec, our_image()).value();
    ASSERT_TRUE(write_app_folder(paths_, files, {".sys-config.json", "{}"}, our_image()));
    const auto built = build_share_image(launcher_, paths_);
    ASSERT_TRUE(built) << built.error().describe();

    struct stat status {};
    ASSERT_EQ(::stat(paths_.share_image().c_str(), &status), 0);
    EXPECT_EQ(status.st_size, 128 << 20);
    EXPECT_LT(status.st_blocks * 512, 4 << 20) << "not sparse";
    const auto run = [&](std::vector<std::string> argv) {
        argv.insert(argv.begin() + 1, {"-i", paths_.share_image()});
        ProcessSpec process;
        process.argv = std::move(argv);
        return run_captured(launcher_, process, std::chrono::seconds(10)).value();
    };
    EXPECT_THAT(run({"mlabel", "-s", "::"}).out, HasSubstr("DSTACKSHR"));
    EXPECT_EQ(run({"mtype", "::/app-compose.json"}).out, files.app_compose);
    EXPECT_EQ(run({"mtype", "::/files/" + crypto::sha256_hex("abc")}).out, "abc");
    EXPECT_EQ(run({"mtype", "::/.sys-config.json"}).out, "{}");
    ProcessSpec check;
    check.argv = {"fsck.fat", "-n", paths_.share_image()};
    const auto checked = run_captured(launcher_, check, std::chrono::seconds(10)).value();
    EXPECT_EQ(checked.status.code, 0) << checked.out;
    EXPECT_FALSE(path_exists(paths_.share_image() + ".tmp"));
}

TEST_F(Delivery, a_failing_tool_is_an_error_with_its_words) {
    const auto files = make_guest_files(spec::VmSpec{}, our_image()).value();
    ASSERT_TRUE(write_app_folder(paths_, files, {".sys-config.json", "{}"}, our_image()));
    // More than the share disk can take; sparse, so that the test writes nothing.
    ASSERT_TRUE(write_file_atomic(paths_.app() + "/big", ""));
    ASSERT_EQ(::truncate((paths_.app() + "/big").c_str(), 129 << 20), 0);
    const auto built = build_share_image(launcher_, paths_);
    ASSERT_FALSE(built);
    EXPECT_THAT(built.error().message, HasSubstr("mcopy failed"));
    EXPECT_FALSE(path_exists(paths_.share_image()));
}

// ---- the data disk and its identity ------------------------------------------------------------

constexpr std::uint64_t disk_bytes = 3 * gib;

TEST_F(Delivery, a_new_disk_is_a_sparse_qcow2_of_the_size_asked_for) {
    ASSERT_TRUE(prepare_data_disk(launcher_, paths_, cache_, disk_bytes, std::nullopt));
    ProcessSpec info;
    info.argv = {"qemu-img", "info", "--output=json", paths_.data_disk()};
    const auto output = run_captured(launcher_, info, std::chrono::seconds(10)).value();
    const auto object = json::parse(output.out);
    EXPECT_EQ(object["format"], "qcow2");
    EXPECT_EQ(object["virtual-size"], disk_bytes);
    EXPECT_LT(object["actual-size"].get<std::uint64_t>(), 1 * mib);
}

TEST_F(Delivery, a_second_disk_of_the_size_needs_no_tool) {
    ASSERT_TRUE(prepare_data_disk(launcher_, paths_, cache_, disk_bytes, std::nullopt));
    const InstancePaths other(dir_ / "j");
    ASSERT_TRUE(make_directories(other.directory));
    launcher_.programs.clear();
    ASSERT_TRUE(prepare_data_disk(launcher_, other, cache_, disk_bytes, std::nullopt));
    EXPECT_THAT(launcher_.programs, IsEmpty());
    EXPECT_EQ(read_file(other.data_disk(), 1 << 20).value(),
              read_file(paths_.data_disk(), 1 << 20).value());
}

TEST_F(Delivery, a_broken_disk_in_the_cache_is_replaced) {
    ASSERT_TRUE(prepare_data_disk(launcher_, paths_, cache_, disk_bytes, std::nullopt));
    const auto good = read_file(paths_.data_disk(), 1 << 20).value();
    write(cache_ + "/empty-" + std::to_string(disk_bytes) + ".qcow2", "");
    ASSERT_TRUE(prepare_data_disk(launcher_, paths_, cache_, disk_bytes, std::nullopt));
    EXPECT_EQ(read_file(paths_.data_disk(), 1 << 20).value(), good);
}

TEST_F(Delivery, a_disk_may_have_a_backing_file) {
    write(dir_ / "base.raw", std::string(1024, 'x'));
    ASSERT_TRUE(prepare_data_disk(launcher_, paths_, cache_, disk_bytes, dir_ / "base.raw"));
    ProcessSpec info;
    info.argv = {"qemu-img", "info", "--output=json", paths_.data_disk()};
    const auto object =
        json::parse(run_captured(launcher_, info, std::chrono::seconds(10)).value().out);
    EXPECT_EQ(object["backing-filename"], dir_ / "base.raw");
    EXPECT_EQ(object["backing-filename-format"], "raw");
}

TEST_F(Delivery, a_disk_with_its_identity_is_left_as_it_is) {
    ASSERT_TRUE(prepare_data_disk(launcher_, paths_, cache_, disk_bytes, std::nullopt));
    ASSERT_TRUE(store_instance_info(paths_, "{\"instance_id\":\"00\"}"));
    struct stat before {};
    ASSERT_EQ(::stat(paths_.data_disk().c_str(), &before), 0);
    ASSERT_TRUE(prepare_data_disk(launcher_, paths_, cache_, disk_bytes, std::nullopt));
    struct stat after {};
    ASSERT_EQ(::stat(paths_.data_disk().c_str(), &after), 0);
    EXPECT_EQ(after.st_ino, before.st_ino);
    EXPECT_EQ(after.st_mtim.tv_nsec, before.st_mtim.tv_nsec);
}

TEST_F(Delivery, a_disk_whose_guest_never_reported_itself_is_made_anew) {
    ASSERT_TRUE(prepare_data_disk(launcher_, paths_, cache_, disk_bytes, std::nullopt));
    struct stat before {};
    ASSERT_EQ(::stat(paths_.data_disk().c_str(), &before), 0);
    ASSERT_TRUE(prepare_data_disk(launcher_, paths_, cache_, disk_bytes, std::nullopt));
    struct stat after {};
    ASSERT_EQ(::stat(paths_.data_disk().c_str(), &after), 0);
    EXPECT_NE(after.st_ino, before.st_ino);
}

TEST_F(Delivery, a_disk_that_has_lost_its_identity_is_refused_and_kept) {
    ASSERT_TRUE(prepare_data_disk(launcher_, paths_, cache_, disk_bytes, std::nullopt));
    ASSERT_TRUE(store_instance_info(paths_, "{}"));
    ASSERT_TRUE(remove_file(paths_.instance_info()));
    const auto prepared = prepare_data_disk(launcher_, paths_, cache_, disk_bytes, std::nullopt);
    ASSERT_FALSE(prepared);
    EXPECT_EQ(prepared.error().code, ErrorCode::wrong_state);
    EXPECT_THAT(prepared.error().message, HasSubstr("lose all data"));
    EXPECT_TRUE(path_exists(paths_.data_disk()));
}

TEST_F(Delivery, an_identity_without_its_disk_is_refused) {
    ASSERT_TRUE(store_instance_info(paths_, "{}"));
    const auto prepared = prepare_data_disk(launcher_, paths_, cache_, disk_bytes, std::nullopt);
    ASSERT_FALSE(prepared);
    EXPECT_EQ(prepared.error().code, ErrorCode::wrong_state);
    EXPECT_FALSE(path_exists(paths_.data_disk()));
}

TEST_F(Delivery, a_disk_of_another_size_is_refused) {
    ASSERT_TRUE(prepare_data_disk(launcher_, paths_, cache_, disk_bytes, std::nullopt));
    ASSERT_TRUE(store_instance_info(paths_, "{}"));
    const auto prepared =
        prepare_data_disk(launcher_, paths_, cache_, 2 * disk_bytes, std::nullopt);
    ASSERT_FALSE(prepared);
    EXPECT_EQ(prepared.error().code, ErrorCode::wrong_state);
    EXPECT_THAT(prepared.error().message, HasSubstr("has 3G, not 6G"));
    EXPECT_THAT(prepared.error().hint, HasSubstr("--disk 3G"));
}

TEST_F(Delivery, a_disk_that_is_no_qcow2_is_refused) {
    write(paths_.data_disk(), "something else");
    ASSERT_TRUE(store_instance_info(paths_, "{}"));
    const auto prepared = prepare_data_disk(launcher_, paths_, cache_, disk_bytes, std::nullopt);
    ASSERT_FALSE(prepared);
    EXPECT_EQ(prepared.error().code, ErrorCode::corrupt_data);
}

TEST_F(Delivery, an_identity_that_is_no_json_object_is_not_stored) {
    for (const auto& text : {std::string("[]"), std::string("x"), std::string(11UL * 1024, ' ')}) {
        EXPECT_EQ(store_instance_info(paths_, text).error().code, ErrorCode::invalid_argument);
        EXPECT_FALSE(path_exists(paths_.instance_info()));
    }
}

} // namespace
} // namespace host_runner::instance

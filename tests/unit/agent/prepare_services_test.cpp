// SPDX-License-Identifier: Apache-2.0
#include "host_runner/agent/prepare_services.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>
#include <gmock/gmock.h>

#include "fakes/temporary_directory.hpp"
#include "host_runner/agent/users.hpp"
#include "host_runner/base/files.hpp"
#include "host_runner/base/process.hpp"

namespace host_runner::agent {
namespace {

using namespace std::chrono_literals;

using testing::Contains;
using testing::HasSubstr;

class PrepareServices : public testing::Test {
protected:
    void SetUp() override {
        // The test's own ids, so that giving folders away works without root.
        ASSERT_TRUE(
            write_file_atomic(folder / "passwd", fmt::format("me:x:{}:{}::/home/me:/bin/sh\n",
                                                             ::getuid(), ::getgid())));
        ASSERT_TRUE(write_file_atomic(folder / "group", ""));
        paths.passwd = folder / "passwd";
        paths.group = folder / "group";
        paths.data = folder / "data";
        paths.state = folder / "run";
        protocol::AppService service;
        service.name = "web";
        service.command = {"httpd"};
        service.user = "me";
        app.services = {service};
        app.volumes = {"store"};
        app.files = {{"./conf", std::string(64, 'a'), 1}};
    }
    protocol::AppService& web() {
        return app.services.front();
    }
    tests::TemporaryDirectory folder;
    GuestPaths paths;
    protocol::AppCompose app;
};

TEST_F(PrepareServices, gives_a_sane_environment_that_the_compose_file_may_override) {
    web().environment = {{"PATH", "/own"}, {"GREETING", "hello"}};
    const auto prepared = prepare_services(app, paths, true, Users::of_the_image);
    ASSERT_TRUE(prepared) << prepared.error().describe();
    EXPECT_THAT(prepared->front().environment,
                testing::UnorderedElementsAre("PATH=/own", "GREETING=hello", "HOME=/home/me"));
    web().environment.clear();
    EXPECT_THAT(prepare_services(app, paths, true, Users::of_the_image)->front().environment,
                Contains(fmt::format("PATH={}", service_path)));
}

TEST_F(PrepareServices, starts_in_the_root_unless_told_otherwise) {
    EXPECT_EQ(
        prepare_services(app, paths, true, Users::of_the_image)->front().launch.working_directory,
        "/");
    web().working_directory = "/srv";
    EXPECT_EQ(
        prepare_services(app, paths, true, Users::of_the_image)->front().launch.working_directory,
        "/srv");
}

TEST_F(PrepareServices, makes_the_folder_of_a_volume) {
    web().mounts = {{"store", "/data", false, false}};
    const auto prepared = prepare_services(app, paths, true, Users::of_the_image);
    ASSERT_TRUE(prepared) << prepared.error().describe();
    const auto& mount = prepared->front().launch.mounts.at(0);
    EXPECT_EQ(mount.source, folder / "data/volumes/store");
    EXPECT_FALSE(mount.read_only);
    struct stat status {};
    ASSERT_EQ(::stat(mount.source.c_str(), &status), 0);
    EXPECT_EQ(status.st_uid, ::getuid());
}

TEST_F(PrepareServices, mounts_delivered_files_read_only_whatever_was_asked) {
    web().mounts = {{"./conf", "/etc/conf", false, true}};
    const auto prepared = prepare_services(app, paths, false, Users::of_the_image);
    ASSERT_TRUE(prepared);
    const auto& mount = prepared->front().launch.mounts.at(0);
    EXPECT_EQ(mount.source, folder / ("run/share/files/" + std::string(64, 'a')));
    EXPECT_TRUE(mount.read_only);
    EXPECT_TRUE(mount.is_file);
}

TEST_F(PrepareServices, needs_a_data_disk_for_a_volume) {
    web().mounts = {{"store", "/data", false, false}};
    const auto prepared = prepare_services(app, paths, false, Users::of_the_image);
    ASSERT_FALSE(prepared);
    EXPECT_EQ(prepared.error().code, ErrorCode::wrong_state);
    EXPECT_THAT(prepared.error().message, HasSubstr("store"));
}

TEST_F(PrepareServices, gives_a_module_what_its_worker_needs_and_a_user_of_its_own) {
    web().module = protocol::AppModule{"./conf", protocol::World::command, 16 << 20, 5s, {}, {}};
    web().user.clear();
    web().ports = {80};
    web().environment = {{"GREETING", "hello"}};
    const auto prepared = prepare_services(app, paths, true, Users::of_the_image);
    ASSERT_TRUE(prepared) << prepared.error().describe();
    const auto& launch = prepared->front().launch;
    ASSERT_TRUE(launch.module);
    EXPECT_EQ(launch.module->path, folder / ("run/share/files/" + std::string(64, 'a')));
    EXPECT_EQ(launch.module->sha256, std::string(64, 'a'));
    EXPECT_EQ(launch.module->cache_folder, folder / "data/modules");
    EXPECT_THAT(launch.module->worker.ports,
                testing::ElementsAre(wasm::worker::Port{.number = 80}));
    EXPECT_EQ(launch.module->worker.memory_bytes, 16U << 20);
    EXPECT_EQ(launch.module->worker.timeout, 5s);
    EXPECT_EQ(launch.user->uid, worker_user("web").uid);
    // What the compose file names, and nothing of the image.
    EXPECT_THAT(prepared->front().environment,
                testing::ElementsAre("GREETING=hello",
                                     "HOST_RUNNER_BOOT_ID=" + current_boot_id().value_or(""),
                                     "HOST_RUNNER_PROGRAM_SHA256=" + std::string(64, 'a')));
    web().environment["HOST_RUNNER_BOOT_ID"] = "mine";
    EXPECT_THAT(prepare_services(app, paths, true, Users::of_the_image)->front().environment,
                testing::Contains("HOST_RUNNER_BOOT_ID=mine"));
    // Without a disk compiled code lies in memory.
    EXPECT_EQ(prepare_services(app, paths, false, Users::of_the_image)
                  ->front()
                  .launch.module->cache_folder,
              folder / "run/modules");
}

TEST_F(PrepareServices, has_the_replicas_of_a_module_share_its_ports_as_one_user) {
    web().module = protocol::AppModule{"./conf", protocol::World::command, 16 << 20, 0s, {}, {}};
    web().user.clear();
    web().ports = {80};
    const auto prepared = [&] {
        return prepare_services(app, paths, true, Users::of_the_image)->front().launch;
    };
    EXPECT_FALSE(prepared().module->worker.shares_ports);
    web().replicas = 2;
    EXPECT_TRUE(prepared().module->worker.shares_ports);
    EXPECT_EQ(prepared().user->uid, worker_user("web").uid);
}

TEST_F(PrepareServices, gives_a_module_the_place_of_its_certificate) {
    web().module = protocol::AppModule{"./conf", protocol::World::command, 16 << 20, 0s, {}, {}};
    EXPECT_FALSE(
        prepare_services(app, paths, true, Users::of_the_image)->front().launch.module->tls);
    web().module->tls.emplace();
    auto tls = prepare_services(app, paths, true, Users::of_the_image)->front().launch.module->tls;
    ASSERT_TRUE(tls);
    EXPECT_EQ(tls->store, folder / "data/tls/web.pem");
    EXPECT_EQ(tls->name, "web");
    web().module->tls = protocol::AppTls{"./conf", "./conf"};
    tls = prepare_services(app, paths, true, Users::of_the_image)->front().launch.module->tls;
    EXPECT_EQ(tls->key_path, folder / ("run/share/files/" + std::string(64, 'a')));
    EXPECT_EQ(tls->store, "");
}

TEST_F(PrepareServices, gives_a_module_the_user_that_is_named) {
    web().module = protocol::AppModule{"./conf", protocol::World::command, 16 << 20, 0s, {}, {}};
    const auto named = prepare_services(app, paths, true, Users::of_the_image);
    ASSERT_TRUE(named);
    EXPECT_EQ(named->front().launch.user->uid, ::getuid());
}

TEST_F(PrepareServices, names_the_service_whose_user_is_unknown) {
    web().user = "nobody-here";
    const auto prepared = prepare_services(app, paths, true, Users::of_the_image);
    ASSERT_FALSE(prepared);
    EXPECT_THAT(prepared.error().message, HasSubstr("web"));
    EXPECT_THAT(prepared.error().message, HasSubstr("nobody-here"));
}

TEST_F(PrepareServices, leaves_everybody_who_we_are_where_nobody_can_become_another) {
    paths.passwd = folder / "absent";
    web().user = "nobody-here";
    web().mounts = {{"store", "/data", false, false}};
    const auto prepared = prepare_services(app, paths, true, Users::ourselves);
    ASSERT_TRUE(prepared) << prepared.error().describe();
    EXPECT_FALSE(prepared->front().launch.user);
    EXPECT_THAT(prepared->front().environment, Contains("HOME=/"));
    struct stat status {};
    ASSERT_EQ(::stat((folder / "data/volumes/store").c_str(), &status), 0);
    EXPECT_EQ(status.st_uid, ::geteuid());
}

} // namespace
} // namespace host_runner::agent

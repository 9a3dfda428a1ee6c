// SPDX-License-Identifier: Apache-2.0
#include "host_runner/cli/formatter.hpp"

#include <gmock/gmock.h>

#include "fakes/golden_file.hpp"
#include "host_runner/base/units.hpp"
#include "host_runner/protocol/guest_api.hpp"

namespace host_runner::cli {
namespace {

using namespace std::chrono_literals;

/// `path` is relative to the project's folder.
testing::AssertionResult is_as_committed(const std::string& path, const std::string& text) {
    return tests::matches_golden(std::string(HOST_RUNNER_SOURCE_DIR) + "/" + path, text);
}

instance::Instance running() {
    instance::Instance one;
    auto& record = one.record;
    record.id = "3f2a1b0c9d8e";
    record.name = "web";
    record.created_ms = 1'764'036'000'000;
    record.started_ms = 1'764'036'060'000;
    record.image_directory = "/srv/images/native";
    record.image_name = "native";
    record.os_image_hash = std::string(64, 'a');
    record.tee = "none";
    record.accelerator = "tcg";
    record.cpus = 2;
    record.memory_bytes = 512 * mib;
    record.disk_bytes = 10 * gib;
    record.ports = spec::parse_port_mappings("tcp::8080:80,udp:0.0.0.0:53:53").value();
    record.compose_path = "/srv/hello.yaml";
    record.compose_hash = std::string(64, 'b');
    record.kernel_command_line = "console=ttyS0";
    record.qemu_path = "/usr/bin/qemu-system-x86_64";
    record.qemu_version = "7.2.22";
    record.qemu_user = "host-runner";
    record.argv = {"/usr/bin/qemu-system-x86_64", "-machine", "q35"};
    record.working_directory = "/home/user";
    record.stdout_log = "/home/user/qemu_stdout.log";
    record.stderr_log = "/home/user/qemu_stderr.log";
    one.state = instance::State::running;
    one.live.emplace();
    one.live->phase = "ready";
    one.live->runner_pid = 4710;
    one.live->qemu_pid = 4711;
    one.live->uptime_ms = 185'000;
    one.live->ready_after_ms = 4200;
    one.live->last_progress = "done";
    one.live->qmp_status = "running";
    one.live->guest_info_json = R"({"boot_id":"0f0f","flavour":"dev"})";
    protocol::ServiceStatus web{
        "web", "running", 7, std::nullopt, 0, std::string(64, 'c'), std::string(64, 'd')};
    web.counters = {{"request", 1200}, {"trapped", 1}, {"timed_out", 0}};
    protocol::ServiceStatus job;
    job.name = "job";
    job.state = "exited";
    job.exit_code = 0;
    one.live->services_json = protocol::encode_services({web, job});
    return one;
}

instance::Instance ended() {
    instance::Instance one;
    one.record.id = "000000000001";
    one.record.image_name = "dstack-0.5.3";
    one.record.tee = "tdx";
    one.record.cpus = 12;
    one.record.memory_bytes = 32 * gib;
    one.record.disk_bytes = 500 * gib;
    one.record.qemu_path = "/usr/bin/qemu-system-x86_64";
    one.record.qemu_version = "10.1.0";
    one.record.created_ms = 1'764'036'000'000;
    one.record.started_ms = 1'764'036'000'000;
    one.state = instance::State::failed;
    one.end = instance::End{1'764'036'100'000, instance::EndReason::qemu_died, ExitCode::qemu_died,
                            "signal 9 (Killed)"};
    return one;
}

StatsRow stats_row() {
    StatsRow row;
    row.id = "3f2a1b0c9d8e";
    row.name = "web";
    row.uptime_ms = 100'000;
    row.qemu_pid = 4711;
    row.runner_pid = 4710;
    row.qemu = {300 * mib, 24.0, 4096, std::nullopt};
    row.runner = {10 * mib, 1.0, 0, 0};
    return row;
}

image::Image sample_image() {
    image::Image image;
    image.directory = "/srv/images/native";
    image.name = "native";
    image.guest = image::Guest::host_runner;
    image.version = {0, 1, 0};
    image.kernel = "/srv/images/native/bzImage";
    image.initrd = "/srv/images/native/initramfs.cpio.gz";
    image.firmware = "/srv/images/native/ovmf.fd";
    image.rootfs = "/srv/images/native/rootfs.img.verity";
    image.rootfs_hash = std::string(64, 'd');
    image.rootfs_size = 40 * mib;
    image.command_line = "console=ttyS0";
    image.os_image_hash = std::string(64, 'a');
    return image;
}

const std::vector<image::Check> sample_checks{{"sha256 bzImage", true, "as in sha256sum.txt"},
                                              {"digest.txt", false, "is 12, should be 34"}};

ComposeReport sample_compose() {
    ComposeReport report;
    report.path = "web/compose.yaml";
    auto& app = report.resolved.app;
    app.name = "web";
    app.volumes = {"data"};
    app.egress = true;
    protocol::AppService site;
    site.name = "site";
    site.command = {"site.wasm", "--verbose"};
    site.module = protocol::AppModule{
        "./site.wasm", protocol::World::command, 16 * mib, 90s, {}, protocol::AppTls{}};
    site.ports = {80};
    site.replicas = 3;
    site.mounts = {{"data", "/data", false, false}, {"./motd", "/etc/motd", true, true}};
    protocol::AppService job;
    job.name = "job";
    job.command = {"/bin/sh", "-c", "echo\x1b[31m"};
    job.user = "1000";
    app.services = {site, job};
    report.resolved.ports = spec::parse_port_mappings("tcp::8080:80").value();
    report.resolved.files = {{"/srv/web/site.wasm", {"./site.wasm", std::string(64, 'a'), 51784}},
                             {"/srv/web/motd", {"./motd", std::string(64, 'b'), 7}}};
    report.hash_with_local_keys = std::string(64, 'c');
    report.hash_without_local_keys = std::string(64, 'd');
    return report;
}

std::vector<config::Setting> sample_settings() {
    return {{config::find_option("run", "tee"),
             {"none"},
             config::Origin::environment,
             "HOST_RUNNER_TEE"},
            {config::find_option("run", "memory"), {"32G"}, config::Origin::built_in, ""},
            {config::find_option("run", "ports"),
             {"tcp::1:1", "tcp::2:2"},
             config::Origin::user_file,
             "/home/user/.config/host-runner/config.toml:3"},
            {config::find_option("run", "name"), {}, config::Origin::built_in, ""}};
}

/// Both forms of each result, compared with the committed ones.
struct Form {
    std::string folder;
    std::string ending;
    std::unique_ptr<Formatter> formatter;
    [[nodiscard]] std::string golden(const std::string& name) const {
        return "tests/golden/" + folder + "/" + name + ending;
    }
};

class FormatterTest : public testing::TestWithParam<std::string> {
protected:
    Form form_{GetParam(), GetParam() == "json" ? ".json" : ".txt", make_formatter(GetParam())};
};

TEST_P(FormatterTest, shows_instances) {
    EXPECT_TRUE(
        is_as_committed(form_.golden("list"), form_.formatter->instances({running(), ended()})));
}

TEST_P(FormatterTest, shows_no_instances) {
    EXPECT_TRUE(is_as_committed(form_.golden("list_empty"), form_.formatter->instances({})));
}

TEST_P(FormatterTest, shows_a_running_instance) {
    EXPECT_TRUE(
        is_as_committed(form_.golden("inspect_running"),
                        form_.formatter->instance(running(), "/state/instances/3f2a1b0c9d8e")));
}

TEST_P(FormatterTest, shows_an_instance_that_has_ended) {
    EXPECT_TRUE(
        is_as_committed(form_.golden("inspect_ended"),
                        form_.formatter->instance(ended(), "/state/instances/000000000001")));
}

TEST_P(FormatterTest, shows_stats) {
    EXPECT_TRUE(is_as_committed(form_.golden("stats"), form_.formatter->stats({stats_row()})));
}

TEST_P(FormatterTest, shows_settings) {
    EXPECT_TRUE(
        is_as_committed(form_.golden("settings"), form_.formatter->settings(sample_settings())));
}

std::vector<GpuRow> sample_gpus() {
    GpuRow held;
    held.gpu.pci.address = spec::parse_pci_addresses("18:00.0").value().front();
    held.gpu.pci.vendor = 0x10de;
    held.gpu.pci.device = 0x2901;
    held.gpu.pci.driver = "vfio-pci";
    held.gpu.pci.iommu_group = 30;
    held.gpu.pci.numa_node = 0;
    held.gpu.pci.can_reset = true;
    held.gpu.model = "GB100 [B200]";
    held.instance_id = "3f2a1b0c9d8e";
    held.instance_name = "web";
    GpuRow left = held;
    left.gpu.pci.address = spec::parse_pci_addresses("2a:00.0").value().front();
    left.instance_id = "000000000001";
    left.instance_name = "";
    left.is_left_behind = true;
    GpuRow used;
    used.gpu.pci.address = spec::parse_pci_addresses("3a:00.0").value().front();
    used.gpu.pci.vendor = 0x1002;
    used.gpu.model = "1002:74a1";
    used.gpu.holder.emplace();
    used.gpu.holder->process.pid = 4242;
    used.gpu.holder->process.program = "train";
    used.gpu.holder->node = "/dev/dri/card0";
    return {held, left, used};
}

TEST_P(FormatterTest, shows_gpus) {
    EXPECT_TRUE(is_as_committed(form_.golden("gpus"), form_.formatter->gpus(sample_gpus())));
}

TEST_P(FormatterTest, shows_findings) {
    using instance::Verdict;
    EXPECT_TRUE(is_as_committed(
        form_.golden("findings"),
        form_.formatter->findings(
            {{"kvm", Verdict::pass, "/dev/kvm opens", ""},
             {"memory", Verdict::warn, "8.0 GiB available", "give it less"},
             {"tdx-vms", Verdict::fail, "KVM offers no TDX VMs", "use a newer kernel"},
             {"libvirt", Verdict::not_needed, "\x1b[31mnobody answers", "install it"}})));
}

TEST_P(FormatterTest, shows_an_image) {
    EXPECT_TRUE(is_as_committed(form_.golden("image"), form_.formatter->image(sample_image())));
}

TEST_P(FormatterTest, shows_checks) {
    EXPECT_TRUE(is_as_committed(form_.golden("checks"),
                                form_.formatter->checks(sample_image(), sample_checks)));
}

TEST_P(FormatterTest, shows_what_a_compose_file_gives) {
    EXPECT_TRUE(
        is_as_committed(form_.golden("compose"), form_.formatter->compose(sample_compose())));
}

INSTANTIATE_TEST_SUITE_P(Forms, FormatterTest, testing::Values("table", "json"),
                         [](const auto& form) { return form.param; });

TEST(TextFormatter, lets_no_control_character_of_the_guest_through) {
    auto one = running();
    one.live->last_progress = "\x1b[2Jgone";
    one.live->guest_info_json = R"({"boot_id":"\u001b]0;title\u0007"})";
    one.live->services_json =
        protocol::encode_services({{"\x1b[31m", "running", 7, std::nullopt, 0, "", "\x1b[31m"}});
    EXPECT_THAT(make_text_formatter()->instance(one, "/x"),
                testing::Not(testing::HasSubstr("\x1b")));
}

TEST(JsonFormatter, survives_deep_and_broken_answers_of_a_guest) {
    auto one = running();
    one.live->guest_info_json = std::string(200'000, '[');
    one.live->services_json = std::string(200'000, '[') + std::string(200'000, ']');
    const auto text = make_json_formatter()->instance(one, "/x");
    EXPECT_THAT(text, testing::HasSubstr("\"guest\": null"));
    EXPECT_LT(text.size(), 10'000U);
}

} // namespace
} // namespace host_runner::cli

// SPDX-License-Identifier: Apache-2.0
#include "host_runner/instance/plan.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "host_runner/base/units.hpp"
#include "host_runner/crypto/digest.hpp"
#include "host_runner/protocol/app_compose.hpp"

namespace host_runner::instance {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

/// Our image on a host that has everything; a test changes what it is about.
class PlanTest : public testing::Test {
protected:
    PlanTest() {
        image.directory = "/images/native";
        image.name = "native";
        image.guest = image::Guest::host_runner;
        image.version = {1, 0, 0};
        image.layout = image::Layout::c;
        image.kernel = "/images/native/bzImage";
        image.initrd = "/images/native/initramfs.cpio.gz";
        image.firmware = "/images/native/ovmf.fd";
        image.rootfs = "/images/native/rootfs.img.verity";
        image.command_line = "console=ttyS0";
        image.shared_read_only = true;
        image.reports_progress = true;
        spec.memory_bytes = 4 * gib;
        spec.cpus = 2;
        files.app_compose = protocol::encode_app_compose(app());
        files.compose_hash.fill(0xab);
        host = {qemu::Accelerator::kvm, "", true, 8, {24 * gib, 16 * gib}};
    }

    static protocol::AppCompose app() {
        protocol::AppCompose result;
        result.name = "hello";
        return result;
    }
    void with_egress() {
        auto asks = app();
        asks.egress = true;
        files.app_compose = protocol::encode_app_compose(asks);
    }
    void dstack(image::Version version, image::Layout layout) {
        image.guest = image::Guest::dstack;
        image.version = version;
        image.layout = layout;
    }

    Result<Plan> plan() const {
        return plan_launch({spec, image, files, host, "demo", "/state/demo"});
    }
    Plan good_plan() const {
        auto result = plan();
        EXPECT_TRUE(result) << result.error().describe();
        return result.value_or(Plan{});
    }

    spec::VmSpec spec;
    image::Image image;
    GuestFiles files;
    HostFacts host;
};

host::PciDevice gpu(const char* address, std::uint32_t node, std::uint64_t bar_bytes) {
    host::PciDevice device;
    device.address = spec::parse_pci_addresses(address).value().front();
    device.numa_node = node;
    device.bars.push_back({.index = 2,
                           .size_bytes = bar_bytes,
                           .is_memory = true,
                           .is_64bit = true,
                           .is_prefetchable = true});
    return device;
}

TEST_F(PlanTest, puts_each_gpu_on_the_guest_node_of_its_own_and_makes_room_for_its_bars) {
    spec.hugepages = true;
    host.numa.nodes = {{0, {0, 1}, 64 * gib, 64 * gib}, {1, {2, 3}, 64 * gib, 64 * gib}};
    host.numa.pools = {{0, gib, 32, 32}, {1, gib, 32, 32}};
    host.numa.mounts = {{gib, "/mnt/1g"}};
    host.numa.gpu_nodes = {1, 0};
    host.gpus.gpus = {gpu("b8:00.0", 1, 128 * gib), gpu("18:00.0", 0, 128 * gib)};
    host.gpus.nvswitches = {gpu("05:00.0", 0, 32 * mib)};
    host.physical_address_bits = 52;
    const auto launch = good_plan().launch;
    ASSERT_EQ(launch.gpus.size(), 3U);
    EXPECT_EQ(launch.gpus[0].numa_index, 1U);
    EXPECT_EQ(launch.gpus[1].numa_index, 0U);
    EXPECT_TRUE(launch.gpus[2].is_nvswitch);
    ASSERT_EQ(launch.numa_nodes.size(), 2U);
    EXPECT_EQ(launch.hugepage_path, "/mnt/1g/host-runner-demo");
    EXPECT_EQ(launch.pci_hole64_bytes, 512 * gib);
}

TEST_F(PlanTest, binds_the_compose_file_to_a_td_of_ours) {
    const auto launch = good_plan().launch;
    ASSERT_TRUE(launch.mr_config_id);
    EXPECT_EQ(*launch.mr_config_id, qemu::mr_config_id_v1(files.compose_hash));
    EXPECT_EQ(launch.qgs, spec::QgsAddress{}) << "quotes go through QEMU";
}

TEST_F(PlanTest, has_no_tdx_fields_without_tdx) {
    spec.tee = spec::Tee::none;
    const auto launch = good_plan().launch;
    EXPECT_FALSE(launch.mr_config_id);
    EXPECT_FALSE(launch.qgs);
    EXPECT_FALSE(launch.firmware) << "SeaBIOS is quicker";
}

TEST_F(PlanTest, says_that_a_vm_without_tdx_is_not_confidential) {
    spec.tee = spec::Tee::none;
    EXPECT_THAT(good_plan().warnings, Contains(HasSubstr("not confidential")));
}

TEST_F(PlanTest, boots_through_the_firmware_when_asked) {
    spec.tee = spec::Tee::none;
    spec.firmware = true;
    EXPECT_EQ(good_plan().launch.firmware, image.firmware);
}

TEST_F(PlanTest, refuses_a_td_without_firmware) {
    image.firmware.reset();
    const auto result = plan();
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().code, ErrorCode::unsupported);
    EXPECT_THAT(result.error().message, HasSubstr("/images/native"));
}

TEST_F(PlanTest, talks_to_our_guest_over_virtio_serial_and_a_share_disk) {
    const auto launch = good_plan().launch;
    EXPECT_EQ(launch.channel, qemu::ChannelMode::virtio_serial);
    EXPECT_EQ(launch.share, qemu::ShareMode::disk);
    EXPECT_EQ(launch.share_path, "/state/demo/share.img");
    EXPECT_TRUE(launch.share_read_only);
}

struct Generation {
    image::Version version;
    image::Layout layout;
    qemu::ShareMode share;
    bool mr_config_id;
    bool mac;
    bool qgs;
};

class GenerationTest : public PlanTest, public testing::WithParamInterface<Generation> {};

TEST_P(GenerationTest, gets_the_devices_of_its_time) {
    const auto& expected = GetParam();
    dstack(expected.version, expected.layout);
    const auto launch = good_plan().launch;
    EXPECT_EQ(launch.layout, expected.layout);
    EXPECT_EQ(launch.channel, qemu::ChannelMode::vsock);
    EXPECT_EQ(launch.vsock_fd, qemu_vsock_fd);
    EXPECT_EQ(launch.share, expected.share);
    EXPECT_EQ(launch.mr_config_id.has_value(), expected.mr_config_id);
    EXPECT_EQ(!launch.mac.empty(), expected.mac);
    EXPECT_EQ(launch.qgs.has_value(), expected.qgs);
}

// dstack-compat section 1 and qemu-tdx section 5: what each generation of images expects.
INSTANTIATE_TEST_SUITE_P(
    Dstack, GenerationTest,
    testing::Values(
        Generation{{0, 3, 3}, image::Layout::a, qemu::ShareMode::plan9, false, false, false},
        Generation{{0, 4, 2}, image::Layout::a, qemu::ShareMode::plan9, false, false, false},
        Generation{{0, 5, 1}, image::Layout::b, qemu::ShareMode::plan9, false, false, false},
        Generation{{0, 5, 2}, image::Layout::b, qemu::ShareMode::plan9, true, false, false},
        Generation{{0, 5, 5}, image::Layout::b, qemu::ShareMode::plan9, true, false, false},
        Generation{{0, 5, 6}, image::Layout::c, qemu::ShareMode::disk, true, true, true},
        Generation{{0, 6, 0}, image::Layout::c, qemu::ShareMode::disk, true, true, true}),
    [](const testing::TestParamInfo<Generation>& generation) {
        const auto& version = generation.param.version;
        return "v" + std::to_string(version.major) + "_" + std::to_string(version.minor) + "_" +
               std::to_string(version.patch);
    });

TEST_F(PlanTest, shares_by_9p_as_writable_as_the_image_says) {
    dstack({0, 5, 5}, image::Layout::b);
    image.shared_read_only = false;
    const auto launch = good_plan().launch;
    EXPECT_EQ(launch.share_path, "/state/demo/app");
    EXPECT_FALSE(launch.share_read_only);
}

TEST_F(PlanTest, falls_back_to_tcp_for_dstack_with_a_warning) {
    dstack({0, 5, 5}, image::Layout::b);
    host.has_vhost_vsock = false;
    const auto result = good_plan();
    EXPECT_EQ(result.launch.channel, qemu::ChannelMode::tcp);
    EXPECT_THAT(result.warnings, Contains(HasSubstr("vhost_vsock")));
}

TEST_F(PlanTest, refuses_tcp_without_a_network) {
    dstack({0, 5, 5}, image::Layout::b);
    host.has_vhost_vsock = false;
    spec.network.mode = spec::NetworkMode::none;
    const auto result = plan();
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().code, ErrorCode::unsupported);
}

TEST_F(PlanTest, keeps_the_users_quote_service) {
    dstack({0, 5, 5}, image::Layout::b);
    spec.qgs = spec::QgsAddress{2, 4051, ""};
    EXPECT_EQ(good_plan().launch.qgs, spec.qgs);
}

TEST_F(PlanTest, keeps_our_guest_off_the_network_outside) {
    EXPECT_FALSE(good_plan().launch.egress);
}

TEST_F(PlanTest, opens_egress_where_the_compose_file_asks) {
    with_egress();
    const auto result = good_plan();
    EXPECT_TRUE(result.launch.egress);
    EXPECT_THAT(result.warnings, Contains(HasSubstr("loopback")));
}

TEST_F(PlanTest, shows_an_open_guest_nothing_of_the_host) {
    with_egress();
    host.network_programs.user_network = "/usr/lib/host-runner/user_network";
    const auto result = good_plan();
    EXPECT_EQ(result.network.backend, usernet::Backend::slirp);
    EXPECT_EQ(result.launch.network_fd, qemu_network_fd);
    EXPECT_THAT(result.warnings, testing::Not(Contains(HasSubstr("loopback"))));
}

TEST_F(PlanTest, leads_to_the_runner_alone_where_there_is_no_vsock) {
    dstack({0, 5, 5}, image::Layout::b);
    host.has_vhost_vsock = false;
    host.network_programs = {"/usr/lib/host-runner/user_network", "/usr/bin/passt", ""};
    EXPECT_EQ(good_plan().network.backend, usernet::Backend::slirp);
}

TEST_F(PlanTest, takes_a_tap_for_a_bridge) {
    spec.network = {spec::NetworkMode::bridge, "br0"};
    const auto result = good_plan();
    EXPECT_EQ(result.network.backend, usernet::Backend::bridge);
    EXPECT_EQ(result.launch.network_fd, qemu_network_fd);
}

TEST_F(PlanTest, lets_the_option_overrule_the_compose_file_on_egress) {
    with_egress();
    spec.egress = false;
    EXPECT_FALSE(good_plan().launch.egress);
}

TEST_F(PlanTest, opens_egress_for_dstack_which_pulls_containers) {
    dstack({0, 5, 5}, image::Layout::b);
    EXPECT_TRUE(good_plan().launch.egress);
}

TEST_F(PlanTest, only_warns_of_more_memory_than_there_is) {
    spec.tee = spec::Tee::none;
    spec.memory_bytes = 32 * gib;
    EXPECT_THAT(good_plan().warnings, Contains(HasSubstr("32")));
}

TEST_F(PlanTest, refuses_a_td_with_more_memory_than_there_is) {
    spec.memory_bytes = 32 * gib;
    const auto result = plan();
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().code, ErrorCode::resource_exhausted);
}

TEST_F(PlanTest, refuses_memory_that_is_no_whole_mebibyte) {
    spec.memory_bytes = 4 * gib + 1;
    const auto result = plan();
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().code, ErrorCode::invalid_argument);
}

TEST_F(PlanTest, warns_of_more_processors_than_there_are) {
    spec.cpus = 12;
    EXPECT_THAT(good_plan().warnings, Contains(HasSubstr("--cpus 12")));
}

TEST_F(PlanTest, appends_to_the_command_line) {
    spec.append = "loglevel=7";
    EXPECT_EQ(good_plan().launch.command_line, "console=ttyS0 loglevel=7");
}

TEST_F(PlanTest, forwards_the_compose_files_ports_that_the_option_does_not_name) {
    spec.ports = {{spec::Protocol::tcp, "0.0.0.0", 9000, 8080}};
    files.ports = {{spec::Protocol::tcp, "127.0.0.1", 8080, 8080},
                   {spec::Protocol::udp, "127.0.0.1", 8080, 8080},
                   {spec::Protocol::tcp, "127.0.0.1", 443, 443}};
    EXPECT_THAT(good_plan().launch.ports,
                ElementsAre(spec.ports[0], files.ports[1], files.ports[2]));
}

TEST_F(PlanTest, says_which_compose_ports_a_vm_without_network_does_not_forward) {
    spec.network.mode = spec::NetworkMode::none;
    files.ports = {{spec::Protocol::tcp, "127.0.0.1", 8080, 8080}};
    const auto result = good_plan();
    EXPECT_THAT(result.launch.ports, IsEmpty());
    EXPECT_THAT(result.warnings, Contains(HasSubstr("tcp:127.0.0.1:8080:8080")));
}

TEST_F(PlanTest, is_shown_as_json) {
    files.notices = {"a notice"};
    const auto json = nlohmann::json::parse(encode_plan(good_plan(), {"qemu", "-m"}, files));
    EXPECT_EQ(json["schema_version"], 1);
    EXPECT_EQ(json["argv"], (nlohmann::json{"qemu", "-m"}));
    EXPECT_EQ(json["app_compose_sha256"], crypto::to_hex(files.compose_hash));
    EXPECT_EQ(json["share"], "disk");
    EXPECT_EQ(json["notices"], (nlohmann::json{"a notice"}));
}

} // namespace
} // namespace host_runner::instance

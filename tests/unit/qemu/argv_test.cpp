// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "argv_case.hpp"
#include "host_runner/base/units.hpp"
#include "host_runner/qemu/launch_plan.hpp"

namespace host_runner::qemu {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

/// A plan that works, to be spoilt by one change.
tests::ArgvCase working(const std::string& name = "layout_c_tdx") {
    return tests::load_argv_case(HOST_RUNNER_SOURCE_DIR "/tests/golden/argv/" + name +
                                 "/options.txt")
        .value();
}

std::vector<std::string> argv_of(const tests::ArgvCase& input) {
    auto argv = build_argv(input.plan, input.capabilities);
    EXPECT_TRUE(argv) << argv.error().describe();
    return std::move(argv).value_or(std::vector<std::string>{});
}

Error error_of(const tests::ArgvCase& input) {
    const auto argv = build_argv(input.plan, input.capabilities);
    EXPECT_FALSE(argv);
    return argv ? Error{} : argv.error();
}

/// The values of `option`, in their order.
std::vector<std::string> values(const std::vector<std::string>& argv, const std::string& option) {
    std::vector<std::string> found;
    for (std::size_t i = 0; i + 1 < argv.size(); ++i)
        if (argv[i] == option)
            found.push_back(argv[i + 1]);
    return found;
}

// --- TDX ----------------------------------------------------------------------------------------

TEST(Argv, a_td_needs_a_qemu_that_knows_tdx) {
    auto input = working();
    input.capabilities.tdx_guest = false;
    const auto error = error_of(input);
    EXPECT_EQ(error.code, ErrorCode::unsupported);
    EXPECT_THAT(error.message, HasSubstr("/usr/bin/qemu-system-x86_64 (version 10.1.0)"));
    EXPECT_THAT(error.hint, HasSubstr("10.1"));
}

TEST(Argv, a_quote_service_needs_a_qemu_that_passes_quotes_on) {
    auto input = working();
    input.capabilities.tdx_quote_socket = false;
    EXPECT_EQ(error_of(input).code, ErrorCode::unsupported);
    input.plan.qgs.reset();
    EXPECT_TRUE(build_argv(input.plan, input.capabilities));
}

TEST(Argv, a_td_never_starts_under_tcg) {
    auto input = working();
    input.plan.accelerator = Accelerator::tcg;
    EXPECT_EQ(error_of(input).code, ErrorCode::invalid_argument);
}

TEST(Argv, a_td_needs_a_firmware) {
    auto input = working();
    input.plan.firmware.reset();
    EXPECT_EQ(error_of(input).code, ErrorCode::invalid_argument);
}

TEST(Argv, without_a_tee_nothing_names_tdx) {
    for (const auto& word : argv_of(working("layout_c_none_kvm")))
        EXPECT_THAT(word, Not(HasSubstr("tdx")));
}

TEST(Argv, without_a_tee_a_missing_firmware_means_seabios) {
    auto input = working("layout_c_none_kvm");
    input.plan.firmware.reset();
    EXPECT_THAT(argv_of(input), Not(Contains("-bios")));
}

TEST(MrConfigId, is_the_version_the_hash_and_zeros) {
    std::array<std::uint8_t, 32> hash{};
    hash.fill(0xab);
    const auto id = mr_config_id_v1(hash);
    EXPECT_EQ(id[0], 1);
    EXPECT_TRUE(std::all_of(id.begin() + 1, id.begin() + 33, [](auto b) { return b == 0xab; }));
    EXPECT_TRUE(std::all_of(id.begin() + 33, id.end(), [](auto b) { return b == 0; }));
}

// --- hardening ----------------------------------------------------------------------------------

TEST(Argv, the_sandbox_is_on_unless_switched_off) {
    auto input = working("own_image_tdx");
    EXPECT_THAT(values(argv_of(input), "-sandbox"),
                ElementsAre("on,obsolete=deny,elevateprivileges=deny,spawn=deny,"
                            "resourcecontrol=deny"));
    input.plan.sandbox = false;
    EXPECT_THAT(argv_of(input), Not(Contains("-sandbox")));
}

TEST(Argv, exit_with_parent_only_where_qemu_knows_it) {
    auto input = working("own_image_tdx");
    EXPECT_THAT(values(argv_of(input), "-run-with"), ElementsAre("exit-with-parent=on"));
    input.capabilities.run_with_exit_with_parent = false;
    EXPECT_THAT(argv_of(input), Not(Contains("-run-with")));
}

// --- network ------------------------------------------------------------------------------------

TEST(Argv, a_port_without_a_user_network_is_an_error) {
    auto input = working("own_image_tdx");
    input.plan.network.mode = spec::NetworkMode::none;
    const auto error = error_of(input);
    EXPECT_EQ(error.code, ErrorCode::invalid_argument);
    EXPECT_THAT(error.message, HasSubstr("tcp:127.0.0.1:8080:8080"));
}

TEST(Argv, a_bridge_needs_its_tap) {
    auto input = working();
    input.plan.network = {spec::NetworkMode::bridge, "br0"};
    input.plan.ports.clear();
    const auto error = error_of(input);
    EXPECT_EQ(error.code, ErrorCode::invalid_argument);
    EXPECT_THAT(error.message, HasSubstr("br0"));
    input.plan.network_fd = 4;
    EXPECT_THAT(values(argv_of(input), "-netdev"),
                ElementsAre(R"({"type":"tap","id":"net0","fd":"4"})"));
}

/// The layout is measured.
TEST(Argv, who_makes_the_network_does_not_change_the_devices) {
    auto input = working();
    const auto devices = values(argv_of(input), "-device");
    input.plan.network_fd = 4;
    EXPECT_EQ(values(argv_of(input), "-device"), devices);
}

TEST(Argv, another_program_forwards_the_ports_of_its_network) {
    auto input = working();
    input.plan.network_fd = 4;
    input.plan.ports = spec::parse_port_mappings("tcp:8080:80").value();
    EXPECT_THAT(values(argv_of(input), "-netdev"),
                ElementsAre(R"({"type":"stream","id":"net0","server":false,)"
                            R"("addr":{"type":"fd","str":"4"}})"));
}

TEST(Argv, a_guest_behind_tcp_needs_egress) {
    auto input = working();
    input.plan.channel = ChannelMode::tcp;
    EXPECT_TRUE(build_argv(input.plan, input.capabilities));
    input.plan.egress = false;
    EXPECT_EQ(error_of(input).code, ErrorCode::invalid_argument);
    input.plan.network_fd = 4; // to a network that shows it the one port
    EXPECT_TRUE(build_argv(input.plan, input.capabilities));
}

TEST(Argv, a_guest_behind_tcp_gets_no_channel_device) {
    auto input = working();
    input.plan.channel = ChannelMode::tcp;
    for (const auto& device : values(argv_of(input), "-device")) {
        EXPECT_THAT(device, Not(HasSubstr("vsock")));
        EXPECT_THAT(device, Not(HasSubstr("virtio-serial")));
    }
}

TEST(Argv, without_a_descriptor_qemu_opens_vsock_itself) {
    auto input = working();
    input.plan.vsock_fd = -1;
    EXPECT_THAT(values(argv_of(input), "-device"),
                Contains(R"({"driver":"vhost-vsock-pci","guest-cid":1000})"));
}

// --- devices that a QEMU may lack ---------------------------------------------------------------

TEST(Argv, names_the_device_that_qemu_lacks) {
    auto input = working("layout_b_gpu");
    const auto message_without = [&](bool Capabilities::*feature) {
        auto spoilt = input;
        spoilt.capabilities.*feature = false;
        const auto error = error_of(spoilt);
        EXPECT_EQ(error.code, ErrorCode::unsupported);
        return error.message;
    };
    EXPECT_THAT(message_without(&Capabilities::vhost_vsock), HasSubstr("vhost-vsock-pci"));
    EXPECT_THAT(message_without(&Capabilities::virtio_9p), HasSubstr("virtio-9p-pci"));
    EXPECT_THAT(message_without(&Capabilities::iommufd), HasSubstr("iommufd"));
    EXPECT_THAT(message_without(&Capabilities::json_netdev), HasSubstr("JSON"));
}

TEST(Argv, needs_nothing_that_the_plan_does_not_use) {
    auto input = working("own_image_none_tcg");
    input.capabilities.vhost_vsock = false;
    input.capabilities.virtio_9p = false;
    EXPECT_TRUE(build_argv(input.plan, input.capabilities));
}

// --- paths --------------------------------------------------------------------------------------

TEST(Argv, a_socket_path_of_107_bytes_is_the_longest) {
    auto input = working("own_image_tdx");
    const std::string longest_name = "/console.sock";
    input.plan.directory = "/" + std::string(107 - 1 - longest_name.size(), 'd');
    EXPECT_TRUE(build_argv(input.plan, input.capabilities));
    input.plan.directory += 'd';
    const auto error = error_of(input);
    EXPECT_EQ(error.code, ErrorCode::invalid_argument);
    EXPECT_THAT(error.message, HasSubstr("108 bytes"));
    EXPECT_THAT(error.hint, HasSubstr("HOST_RUNNER_HOME"));
}

TEST(Argv, a_comma_does_not_count_twice_in_a_socket_path) {
    auto input = working("own_image_tdx");
    input.plan.directory = "/" + std::string(90, ',');
    EXPECT_TRUE(build_argv(input.plan, input.capabilities));
}

TEST(Argv, a_path_that_json_cannot_hold_is_an_error) {
    auto input = working();
    input.plan.hugepage_path = "/dev/huge\xff";
    EXPECT_EQ(error_of(input).code, ErrorCode::invalid_argument);
    input = working("own_image_net_none");
    input.plan.qgs->unix_path = "/run/\xff";
    EXPECT_EQ(error_of(input).code, ErrorCode::invalid_argument);
}

TEST(Argv, an_image_without_a_root_file_system_has_its_data_disk_first) {
    auto input = working("own_image_tdx");
    input.plan.rootfs.reset();
    EXPECT_THAT(values(argv_of(input), "-drive").front(), HasSubstr("disk.qcow2,if=none,id=hd0"));
}

// --- memory and GPUs ----------------------------------------------------------------------------

TEST(Argv, memory_is_whole_mebibytes) {
    auto input = working("layout_c_none_kvm");
    input.plan.memory_bytes = 512 * mib + 1;
    EXPECT_EQ(error_of(input).code, ErrorCode::invalid_argument);
    input.plan.memory_bytes = 0;
    EXPECT_EQ(error_of(input).code, ErrorCode::invalid_argument);
}

TEST(Argv, the_memory_of_a_td_is_never_overcommitted) {
    auto input = working("own_image_tdx");
    input.plan.reserve_memory = false;
    EXPECT_EQ(error_of(input).code, ErrorCode::invalid_argument);
}

TEST(Argv, the_memory_of_the_nodes_must_be_the_vms) {
    auto input = working();
    input.plan.numa_nodes[0].memory_bytes -= gib;
    const auto error = error_of(input);
    EXPECT_EQ(error.code, ErrorCode::invalid_argument);
    EXPECT_THAT(error.message, HasSubstr("63G"));
    EXPECT_THAT(error.message, HasSubstr("64G"));
}

TEST(Argv, nodes_and_hugepages_go_together) {
    auto input = working();
    input.plan.hugepage_path.clear();
    EXPECT_EQ(error_of(input).code, ErrorCode::invalid_argument);
    input = working();
    input.plan.numa_nodes.clear();
    EXPECT_EQ(error_of(input).code, ErrorCode::invalid_argument);
}

TEST(Argv, a_gpu_must_be_on_a_node_that_exists) {
    auto input = working();
    input.plan.gpus[0].numa_index = 1;
    EXPECT_EQ(error_of(input).code, ErrorCode::invalid_argument);
}

TEST(Argv, switches_follow_the_gpus_in_whatever_order_they_are_given) {
    auto input = working("gpus_eight_and_switches");
    const auto expected = argv_of(input);
    std::rotate(input.plan.gpus.begin(), input.plan.gpus.begin() + 8, input.plan.gpus.end());
    EXPECT_EQ(argv_of(input), expected);
}

// --- MAC addresses ------------------------------------------------------------------------------

TEST(MacAddress, is_the_one_that_dstack_gives) {
    EXPECT_EQ(mac_address("demo", 0), "2a:97:51:6c:35:4b");
}

TEST(MacAddress, is_local_unicast_and_differs_by_card) {
    for (unsigned index = 0; index < 16; ++index) {
        const auto first = std::stoul(mac_address("demo", index).substr(0, 2), nullptr, 16);
        EXPECT_EQ(first & 3U, 2U);
    }
    EXPECT_NE(mac_address("demo", 0), mac_address("demo", 1));
}

} // namespace
} // namespace host_runner::qemu

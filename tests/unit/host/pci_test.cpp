// SPDX-License-Identifier: Apache-2.0
#include "host_runner/host/pci.hpp"

#include <gmock/gmock.h>

#include "fakes/pci_machine.hpp"
#include "host_runner/base/units.hpp"

namespace host_runner::host {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using tests::PciMachine;

spec::PciAddress at(std::string_view text) {
    return spec::parse_pci_addresses(text).value().at(0);
}

TEST(ReadPciDevice, reads_everything_about_a_gpu) {
    const auto machine = PciMachine::with_eight_gpus();
    const auto device = read_pci_device(at("9a:00.0"), machine.root());
    ASSERT_TRUE(device) << device.error().describe();
    EXPECT_EQ(device->class_code, 0x030200U);
    EXPECT_EQ(device->class_and_subclass(), 0x0302U);
    EXPECT_EQ(device->vendor, 0x10de);
    EXPECT_EQ(device->device, 0x2335);
    EXPECT_EQ(device->driver, "nvidia");
    EXPECT_EQ(device->driver_override, "");
    EXPECT_EQ(device->iommu_group, 34U);
    EXPECT_THAT(device->group_members, ElementsAre(at("9a:00.0")));
    EXPECT_EQ(device->numa_node, 1U);
    EXPECT_TRUE(device->can_reset);
    EXPECT_EQ(device->vfio_cdev, "");
    EXPECT_THAT(device->bars, ElementsAre(PciBar{0, 16 * mib, true, true, true},
                                          PciBar{2, 256 * gib, true, true, true},
                                          PciBar{4, 32 * mib, true, true, true}));
}

TEST(ReadPciDevice, lists_the_whole_group_sorted) {
    const auto machine = PciMachine::with_eight_gpus();
    EXPECT_THAT(read_pci_device(at("18:00.0"), machine.root()).value().group_members,
                ElementsAre(at("17:01.0"), at("18:00.0"), at("18:00.1")));
}

TEST(ReadPciDevice, tells_what_is_not_there) {
    PciMachine machine;
    machine.add({.address = "0000:01:00.0", .node = -1, .can_reset = false});
    const auto device = read_pci_device(at("01:00.0"), machine.root()).value();
    EXPECT_EQ(device.driver, "");
    EXPECT_FALSE(device.iommu_group);
    EXPECT_FALSE(device.numa_node);
    EXPECT_FALSE(device.can_reset);
    EXPECT_THAT(device.bars, IsEmpty());
}

TEST(ReadPciDevice, finds_override_and_vfio_device) {
    PciMachine machine;
    machine.add({.address = "0000:01:00.0", .driver = "vfio-pci"});
    machine.write("/sys/bus/pci/devices/0000:01:00.0/driver_override", "vfio-pci\n");
    machine.write("/sys/bus/pci/devices/0000:01:00.0/vfio-dev/vfio3/dev", "511:3\n");
    const auto device = read_pci_device(at("01:00.0"), machine.root()).value();
    EXPECT_EQ(device.driver_override, "vfio-pci");
    EXPECT_EQ(device.vfio_cdev, "vfio3");
}

TEST(ReadPciDevice, names_a_device_that_is_not_there) {
    const auto device = read_pci_device(at("01:00.0"), PciMachine().root());
    ASSERT_FALSE(device);
    EXPECT_EQ(device.error().code, ErrorCode::not_found);
    EXPECT_THAT(device.error().message, HasSubstr("0000:01:00.0"));
    EXPECT_THAT(device.error().hint, HasSubstr("gpu list"));
}

TEST(ReadPciDevice, names_the_file_that_has_not_its_form) {
    for (const auto* const file : {"class", "vendor", "device", "numa_node", "resource"}) {
        PciMachine machine;
        machine.add({.address = "0000:01:00.0"});
        machine.write(std::string("/sys/bus/pci/devices/0000:01:00.0/") + file, "nonsense\n");
        const auto device = read_pci_device(at("01:00.0"), machine.root());
        ASSERT_FALSE(device) << file;
        EXPECT_EQ(device.error().code, ErrorCode::corrupt_data) << file;
        EXPECT_THAT(device.error().message, HasSubstr(file));
    }
}

TEST(ReadPciDevice, reads_no_more_than_a_page_of_a_file) {
    PciMachine machine;
    machine.add({.address = "0000:01:00.0"});
    machine.write("/sys/bus/pci/devices/0000:01:00.0/class", std::string(10'000, '0'));
    EXPECT_EQ(read_pci_device(at("01:00.0"), machine.root()).error().code, ErrorCode::corrupt_data);
}

TEST(ListPciDevices, gives_what_has_an_address_of_ours_sorted) {
    PciMachine machine;
    machine.add({.address = "0001:01:00.0"});
    machine.add({.address = "0000:ff:1f.7"});
    machine.write("/sys/bus/pci/devices/10000:00:00.0/class", "0x030000\n"); // behind Intel's VMD
    EXPECT_THAT(list_pci_devices(machine.root()).value(),
                ElementsAre(at("ff:1f.7"), at("0001:01:00.0")));
}

TEST(ListPciDevices, works_on_this_machine) {
    const auto addresses = list_pci_devices();
    ASSERT_TRUE(addresses) << addresses.error().describe();
    for (const auto& address : *addresses) {
        const auto device = read_pci_device(address);
        EXPECT_TRUE(device) << device.error().describe();
    }
}

TEST(ParsePciResources, tells_the_kinds_of_bars_apart) {
    EXPECT_THAT(parse_pci_resources("0x00000000fb000000 0x00000000fbffffff 0x0000000000040200\n"
                                    "0x0000000000000000 0x0000000000000000 0x0000000000000000\n"
                                    "0x000000000000e000 0x000000000000e07f 0x0000000000040101\n"
                                    "0x0000380000000000 0x0000381fffffffff 0x000000000014220c\n")
                    .value(),
                ElementsAre(PciBar{0, 16 * mib, true, false, false},
                            PciBar{2, 128, false, false, false},
                            PciBar{3, 128 * gib, true, true, true}));
}

TEST(ParsePciResources, leaves_out_rom_and_windows) {
    std::string text;
    for (int i = 0; i < 6; ++i)
        text += "0x0 0x0 0x0\n";
    EXPECT_THAT(parse_pci_resources(text + "0x1000 0x1fff 0x46200\n").value(), IsEmpty());
}

TEST(ParsePciResources, refuses_other_forms) {
    for (const auto* const text :
         {"0x0 0x0\n", "0x0 0x0 0x0 0x0\n", "a b z\n", "0x2 0x1 0x200\n", "\n",
          "0x0 0xffffffffffffffff 0x200\n", "0x0 0x1ffffffffffffffff 0x200\n"})
        EXPECT_FALSE(parse_pci_resources(text)) << text;
}

constexpr std::string_view pci_ids = "# comment\n"
                                     "1002  AMD\n"
                                     "\t2901  Not this one\n"
                                     "10de  NVIDIA Corporation\n"
                                     "\t2335  GH100 [H200 SXM 141GB]\n"
                                     "\t\t10de 2901  A subsystem\n"
                                     "\t2901  GB100 [B200]\n"
                                     "10df  Emulex\n"
                                     "\t2902  Nor this\n";

TEST(FindInPciIds, finds_the_device_of_the_vendor) {
    EXPECT_EQ(find_in_pci_ids(pci_ids, 0x10de, 0x2901), "GB100 [B200]");
    EXPECT_EQ(find_in_pci_ids(pci_ids, 0x10de, 0x2335), "GH100 [H200 SXM 141GB]");
}

TEST(FindInPciIds, is_empty_for_unknown_ones) {
    EXPECT_EQ(find_in_pci_ids(pci_ids, 0x10de, 0x2902), "");
    EXPECT_EQ(find_in_pci_ids(pci_ids, 0x8086, 0x2901), "");
    EXPECT_EQ(find_in_pci_ids("", 0x10de, 0x2901), "");
}

} // namespace
} // namespace host_runner::host

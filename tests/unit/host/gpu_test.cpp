// SPDX-License-Identifier: Apache-2.0
#include "host_runner/host/gpu.hpp"

#include <filesystem>

#include <gmock/gmock.h>

#include "fakes/pci_machine.hpp"

namespace host_runner::host {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;
using tests::PciMachine;

std::vector<spec::PciAddress> at(std::string_view text) {
    return spec::parse_pci_addresses(text).value();
}

const Gpu& find(const std::vector<Gpu>& gpus, std::string_view address) {
    for (const auto& gpu : gpus)
        if (gpu.pci.address == at(address).front())
            return gpu;
    throw std::runtime_error("no such GPU");
}

Error refused(const PciMachine& machine, std::string_view addresses) {
    const auto selection = select_gpus(at(addresses), machine.root());
    EXPECT_FALSE(selection);
    return selection ? Error{} : selection.error();
}

// --- list ---------------------------------------------------------------------------------------

TEST(ListGpus, gives_gpus_and_switches_but_no_other_function) {
    const auto machine = PciMachine::with_eight_gpus();
    const auto gpus = list_gpus(machine.root()).value();
    ASSERT_THAT(gpus, SizeIs(12));
    EXPECT_EQ(gpus[0].kind, GpuKind::nvswitch);
    EXPECT_EQ(gpus[0].pci.address, at("05:00.0").front());
    EXPECT_EQ(gpus[4].kind, GpuKind::gpu);
    EXPECT_EQ(gpus[4].pci.address, at("18:00.0").front());
    EXPECT_EQ(gpus[4].pci.driver, "nvidia");
}

TEST(ListGpus, shows_other_vendors_too) {
    PciMachine machine;
    machine.add({.address = "0000:01:00.0", .class_code = "0x030000", .vendor = "0x1002"});
    machine.add({.address = "0000:02:00.0", .class_code = "0x038000", .vendor = "0x8086"});
    machine.add({.address = "0000:03:00.0", .class_code = "0x030000", .vendor = "0x1a03"});
    EXPECT_THAT(list_gpus(machine.root()).value(), SizeIs(2)) << "a board's VGA chip is none";
}

TEST(ListGpus, takes_the_model_from_pci_ids) {
    auto machine = PciMachine::with_eight_gpus();
    EXPECT_EQ(find(list_gpus(machine.root()).value(), "18:00.0").model, "10de:2901");
    machine.write("/usr/share/misc/pci.ids", "10de  NVIDIA Corporation\n\t2901  GB100 [B200]\n");
    const auto gpus = list_gpus(machine.root()).value();
    EXPECT_EQ(find(gpus, "18:00.0").model, "GB100 [B200]");
    EXPECT_EQ(find(gpus, "9a:00.0").model, "10de:2335");
}

TEST(ListGpus, names_who_holds_one) {
    auto machine = PciMachine::with_eight_gpus();
    const auto gpus = list_gpus(machine.root()).value();
    EXPECT_EQ(find(gpus, "3a:00.0").holder,
              (DeviceHolder{ProcessHolder{4242, "train"}, "/dev/nvidia2"}));
    EXPECT_FALSE(find(gpus, "18:00.0").holder);
}

TEST(ListGpus, leaves_out_what_cannot_be_read_and_says_so) {
    auto machine = PciMachine::with_eight_gpus();
    machine.write("/sys/bus/pci/devices/0000:18:00.0/vendor", "?\n");
    std::vector<std::string> problems;
    const auto gpus = list_gpus(machine.root(), [&](const Error& error) {
                          problems.push_back(error.message);
                      }).value();
    EXPECT_THAT(gpus, SizeIs(11));
    EXPECT_THAT(problems, ElementsAre(HasSubstr("0000:18:00.0/vendor")));
}

TEST(ListGpus, is_empty_without_pci) {
    EXPECT_THAT(list_gpus(tests::PciMachine().root()).value(), IsEmpty());
}

// --- select -------------------------------------------------------------------------------------

TEST(SelectGpus, keeps_the_order_of_the_user_and_puts_switches_last) {
    const auto machine = PciMachine::with_eight_gpus();
    const auto selection = select_gpus(at("05:00.0,ab:00.0,9a:00.0"), machine.root());
    ASSERT_TRUE(selection) << selection.error().describe();
    EXPECT_EQ(selection->for_vm(), at("ab:00.0,9a:00.0,05:00.0"));
    EXPECT_EQ(selection->addresses(), at("ab:00.0,9a:00.0,05:00.0"));
}

TEST(SelectGpus, takes_the_other_functions_of_the_card_along) {
    const auto machine = PciMachine::with_eight_gpus();
    const auto selection = select_gpus(at("18:00.0"), machine.root());
    ASSERT_TRUE(selection) << selection.error().describe();
    EXPECT_EQ(selection->for_vm(), at("18:00.0"));
    EXPECT_EQ(selection->addresses(), at("18:00.0,18:00.1")) << "but not the bridge";
}

TEST(SelectGpus, refuses_what_is_no_gpu_and_says_what_is_taken) {
    const auto machine = PciMachine::with_eight_gpus();
    for (const auto* const address : {"2b:00.0", "18:00.1", "17:01.0"}) {
        const auto error = refused(machine, address);
        EXPECT_EQ(error.code, ErrorCode::invalid_argument);
        EXPECT_THAT(error.message, AllOf(HasSubstr(address), HasSubstr("is not a GPU")));
        EXPECT_THAT(error.hint, HasSubstr("vendor 10de, class 0x03xx"));
    }
    EXPECT_EQ(refused(machine, "2b:00.0").message,
              "Device 0000:2b:00.0 (8086:1533, class 0x020000) is not a GPU");
}

TEST(SelectGpus, refuses_gpus_of_other_vendors) {
    PciMachine machine;
    machine.add({.address = "0000:01:00.0", .vendor = "0x1002", .device = "0x74a1", .group = 1});
    EXPECT_EQ(refused(machine, "01:00.0").message, "GPU 0000:01:00.0 (1002:74a1) is not NVIDIA's");
}

TEST(SelectGpus, refuses_a_gpu_in_use_and_names_the_process) {
    const auto machine = PciMachine::with_eight_gpus();
    const auto error = refused(machine, "18:00.0,3a:00.0");
    EXPECT_EQ(error.code, ErrorCode::already_exists);
    EXPECT_EQ(error.message, "GPU 0000:3a:00.0 is in use: train (pid 4242) has /dev/nvidia2 open");
}

TEST(SelectGpus, sees_every_kind_of_node) {
    for (const auto* const node :
         {"/dev/dri/renderD128", "/dev/dri/card1", "/dev/vfio/33", "/dev/vfio/devices/vfio9"}) {
        auto machine = PciMachine::with_eight_gpus();
        machine.write("/sys/bus/pci/devices/0000:5d:00.0/drm/card1/dev", "226:1\n");
        machine.write("/sys/bus/pci/devices/0000:5d:00.0/drm/renderD128/dev", "226:128\n");
        machine.write("/sys/bus/pci/devices/0000:5d:00.0/vfio-dev/vfio9/dev", "511:9\n");
        ASSERT_TRUE(select_gpus(at("5d:00.0"), machine.root()));
        machine.opens("77", "user", node);
        EXPECT_THAT(refused(machine, "5d:00.0").message, HasSubstr(node));
    }
}

TEST(SelectGpus, takes_any_open_switch_node_for_each_switch) {
    auto machine = PciMachine::with_eight_gpus();
    machine.opens("99", "nv-fabricmanage", "/dev/nvidia-nvswitch3");
    EXPECT_THAT(refused(machine, "05:00.0").message,
                AllOf(HasSubstr("NVSwitch 0000:05:00.0"), HasSubstr("nv-fabricmanage (pid 99)")));
}

TEST(SelectGpus, refuses_a_group_that_is_shared_with_the_host) {
    const auto machine = PciMachine::with_eight_gpus();
    const auto error = refused(machine, "2a:00.0");
    EXPECT_EQ(error.code, ErrorCode::wrong_state);
    EXPECT_EQ(error.message, "GPU 0000:2a:00.0 cannot be taken alone: its IOMMU group 31 also has "
                             "Device 0000:2b:00.0 (8086:1533, driver igb)");
    EXPECT_THAT(error.hint, HasSubstr("bind that one to vfio-pci"));
}

TEST(SelectGpus, takes_a_shared_group_whose_others_are_on_vfio_and_free) {
    auto machine = PciMachine::with_eight_gpus();
    machine.link("/sys/bus/pci/devices/0000:2b:00.0/driver", "../../drivers/vfio-pci");
    machine.write("/sys/bus/pci/devices/0000:2b:00.0/vfio-dev/vfio1/dev", "511:1\n");
    const auto selection = select_gpus(at("2a:00.0"), machine.root());
    ASSERT_TRUE(selection) << selection.error().describe();
    EXPECT_EQ(selection->addresses(), at("2a:00.0")) << "what is prepared is left alone";
    machine.opens("78", "qemu", "/dev/vfio/devices/vfio1");
    EXPECT_THAT(refused(machine, "2a:00.0").message, HasSubstr("0000:2b:00.0 is in use"));
}

TEST(SelectGpus, wants_all_gpus_of_one_group_together) {
    PciMachine machine;
    machine.add({.address = "0000:01:00.0", .driver = "nvidia", .group = 1});
    machine.add({.address = "0000:02:00.0", .driver = "nvidia", .group = 1});
    EXPECT_EQ(refused(machine, "01:00.0").hint, "take both: -g 0000:01:00.0,0000:02:00.0");
    EXPECT_TRUE(select_gpus(at("01:00.0,02:00.0"), machine.root()));
}

TEST(SelectGpus, says_what_the_machine_lacks) {
    PciMachine machine;
    machine.add({.address = "0000:01:00.0", .driver = "nvidia"});
    const auto no_iommu = refused(machine, "01:00.0");
    EXPECT_EQ(no_iommu.code, ErrorCode::unsupported);
    EXPECT_THAT(no_iommu.message, HasSubstr("the IOMMU is off"));
    EXPECT_THAT(no_iommu.hint, HasSubstr("intel_iommu=on"));

    machine.add({.address = "0000:01:00.0", .driver = "nvidia", .group = 1});
    std::filesystem::remove(machine.root().path("/dev/iommu"));
    EXPECT_THAT(refused(machine, "01:00.0").hint, HasSubstr("modprobe iommufd"));

    machine.write("/dev/iommu", "");
    machine.remove_driver("vfio-pci");
    EXPECT_EQ(refused(machine, "01:00.0").hint, "modprobe vfio-pci");
}

TEST(SelectGpus, names_a_device_that_is_not_there) {
    EXPECT_EQ(refused(PciMachine::with_eight_gpus(), "f0:00.0").code, ErrorCode::not_found);
}

// --- all ----------------------------------------------------------------------------------------

TEST(SelectAllGpus, takes_the_switches_too) {
    const auto machine = PciMachine::with_eight_free_gpus();
    const auto selection = select_all_gpus(machine.root());
    ASSERT_TRUE(selection) << selection.error().describe();
    EXPECT_THAT(selection->gpus, SizeIs(8));
    EXPECT_THAT(selection->nvswitches, SizeIs(4));
    EXPECT_THAT(selection->companions, SizeIs(1));
    EXPECT_EQ(selection->gpus.front().address, at("18:00.0").front());
}

TEST(SelectAllGpus, means_all) {
    const auto selection = select_all_gpus(PciMachine::with_eight_gpus().root());
    ASSERT_FALSE(selection);
    EXPECT_THAT(selection.error().message, HasSubstr("0000:3a:00.0 is in use"));
}

TEST(SelectAllGpus, passes_over_other_vendors) {
    PciMachine machine;
    machine.add({.address = "0000:01:00.0", .vendor = "0x8086", .group = 1});
    const auto none = select_all_gpus(machine.root());
    ASSERT_FALSE(none);
    EXPECT_EQ(none.error().code, ErrorCode::not_found);
    EXPECT_EQ(none.error().message, "--gpus all: this machine has no NVIDIA GPU");
    machine.add({.address = "0000:02:00.0", .group = 2});
    EXPECT_EQ(select_all_gpus(machine.root()).value().for_vm(), at("02:00.0"));
}

TEST(SelectAllGpus, does_not_leave_out_what_it_cannot_read) {
    auto machine = PciMachine::with_eight_free_gpus();
    machine.write("/sys/bus/pci/devices/0000:18:00.0/vendor", "?\n");
    EXPECT_EQ(select_all_gpus(machine.root()).error().code, ErrorCode::corrupt_data);
}

} // namespace
} // namespace host_runner::host

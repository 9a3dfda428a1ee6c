// SPDX-License-Identifier: Apache-2.0
#include "host_runner/qemu/diagnose.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace host_runner::qemu {
namespace {

using testing::HasSubstr;

struct Known {
    const char* line;    ///< As QEMU, the firmware or the guest writes it.
    const char* meaning; ///< A part of the sentence.
    const char* remedy;  ///< A part of the remedy.
};

void PrintTo(const Known& known, std::ostream* out) {
    *out << known.line;
}

class KnownMessage : public testing::TestWithParam<Known> {};

TEST_P(KnownMessage, gets_a_meaning_and_a_remedy) {
    const auto found = diagnose(GetParam().line);
    ASSERT_TRUE(found);
    EXPECT_THAT(found->meaning, HasSubstr(GetParam().meaning));
    EXPECT_THAT(found->remedy, HasSubstr(GetParam().remedy));
    EXPECT_EQ(found->raw_line, GetParam().line);
}

const Known known_messages[] = {
    {"qemu-system-x86_64: -object {...}: Parameter 'qom-type' does not accept value 'tdx-guest'",
     "cannot start a TD", "10.1"},
    {"qemu-system-x86_64: vm-type tdx not supported by KVM", "KVM has TDX switched off",
     "kvm_intel.tdx=1"},
    {"qemu-system-x86_64: confidential guest support for tdx-guest: KVM required", "needs KVM",
     "--accel kvm"},
    {"qemu-system-x86_64: TDX ioctl KVM_TDX_CAPABILITIES failed, hw_errors: 0x0",
     "do not speak the same TDX interface", "10.1"},
    {"qemu-system-x86_64: TDX ioctl KVM_TDX_INIT_VM failed, hw_errors: 0xc0000100", "refused",
     "update the TDX module"},
    {"Hardware RNG (RDRAND/RDSEED) is busy", "random number generator", "again later"},
    {"TDX ioctl KVM_TDX_INIT_MEM_REGION failed, hw_errors: 0x0", "firmware", "free memory"},
    {"Failed to accept memory for guest", "firmware", "free memory"},
    {"KVM: unknown exit, hardware reason 31", "too old", "update the TDX module"},
    {"TDX VM doesn't support SMM", "machine options", "report"},
    {"TDX VM doesn't support PIC", "machine options", "report"},
    {"TDX VM requires kernel_irqchip to be split", "machine options", "report"},
    {"Named cpu model is not supported for TDX yet!", "processor model", "report"},
    {"TDX requires guest CPU physical bits (40) to match host CPU physical bits (52)",
     "address width", "report"},
    {"Invalid attributes 0x1 for TDX VM", "DEBUG never", "report"},
    {"The unsupported TD attribute bits are: 0x1", "DEBUG never", "report"},
    {"Invalid XFAM 0x40000", "processor feature", "TDX module"},
    {"Invalid TSC 5000 KHz, must specify cpu_frequency between [100000, 10000000] kHz",
     "time stamp counter", "kernel"},
    {"core crystal clock of KVM is not 25MHz", "clock", "kernel"},
    {"KVM_CAP_X86_APIC_BUS_CYCLES_NS is not supported", "clock", "kernel"},
    {"TDX 'mrconfigid' sha384 digest was 32 bytes, expected 48 bytes", "wrong length", "report"},
    {"Failed to find TD_HOB location", "no TDX firmware", "image verify"},
    {"Unsupported TDVF section type 9", "no TDX firmware", "image verify"},
    {"failed to parse TDVF for TDX VM", "no TDX firmware", "image verify"},
    {"get-quote: failed to connect: Connection refused", "quote generation service", "qgsd"},
    {"QGS error code: 0x12001", "no PCK certificate", "PCCS"},
    {"TDX guest reports fatal error. REPORT_FATAL_ERROR: dracut", "guest gave up", "serial"},
    {"qemu-system-x86_64: cpus are not resettable, terminating", "rebooted",
     "--restart on-failure"},
    {"qemu-system-x86_64: -accel kvm: failed to initialize kvm: Permission denied",
     "may not use /dev/kvm", "group kvm"},
    {"qemu-system-x86_64: -accel kvm: failed to initialize kvm: No such file or directory",
     "no /dev/kvm", "modprobe"},
    {"qemu-system-x86_64: failed to initialize kvm: Inappropriate ioctl for device",
     "do not speak the same TDX interface", "6.16"},
    {"Parameter 'qom-type' does not accept value 'iommufd'", "no iommufd", "9.0"},
    {"vfio 0000:b8:00.0: /dev/iommu does not exist", "no iommufd", "CONFIG_IOMMUFD"},
    {"Failed to open /dev/vfio/devices/vfio0: Permission denied", "vfio-pci", "rights"},
    {"vfio 0000:99:00.0: no such host device: No such file or directory", "no PCI device", "lspci"},
    {"vfio 0000:b8:00.0: group 42 is not viable", "IOMMU group", "every device"},
    {"VFIO_MAP_DMA failed: No space left on device", "mapped for a GPU", "iommufd"},
    {"Address space limit 0xfff < 0x3fff phys-bits too low (44)", "address space", "fewer GPUs"},
    {"unable to map backing store for guest RAM: Cannot allocate memory", "hugepages",
     "free_hugepages"},
    {"cannot bind memory to host NUMA nodes: Invalid argument", "no such NUMA node", "numactl"},
    {"qemu-system-x86_64: cannot set up guest memory 'pc.ram': Cannot allocate memory",
     "too little free memory", "--memory"},
    {"vhost-vsock: unable to set guest cid: Address already in use", "CID is taken", "again"},
    {"vhost-vsock: failed to open vhost device: No such file or directory", "/dev/vhost-vsock",
     "modprobe vhost_vsock"},
    {"-device vhost-vsock-pci,guest-cid=3: Could not open '/dev/vhost-vsock': No such file",
     "/dev/vhost-vsock", "modprobe vhost_vsock"},
    {"-netdev {}: Could not set up host forwarding rule 'tcp:127.0.0.1:80-:80'",
     "host port is taken", "another host port"},
    {"Failed to get \"write\" lock", "used by another process", "stop the other"},
    {"-drive file=/a: Could not open '/a': Permission denied", "may not open a file", "rights"},
};

INSTANTIATE_TEST_SUITE_P(Table, KnownMessage, testing::ValuesIn(known_messages));

TEST(Diagnose, ignores_case) {
    EXPECT_TRUE(diagnose("VM-TYPE TDX NOT SUPPORTED BY kvm"));
}

TEST(Diagnose, an_unknown_text_has_no_diagnosis) {
    EXPECT_FALSE(diagnose("qemu-system-x86_64: something new\n"));
    EXPECT_FALSE(diagnose(""));
}

TEST(Diagnose, parts_of_a_pattern_must_come_in_order) {
    EXPECT_FALSE(diagnose("not viable is the group 42"));
}

TEST(Diagnose, skips_warnings_that_mean_nothing) {
    const auto found =
        diagnose("qemu-system-x86_64: warning: TCG doesn't support requested feature: "
                 "CPUID.01H:ECX.pcid [bit 17]\r\n"
                 "\n"
                 "qemu-system-x86_64: vm-type tdx not supported by KVM\r\n"
                 "qemu-system-x86_64: Failed to get \"write\" lock\n");
    ASSERT_TRUE(found);
    EXPECT_EQ(found->raw_line, "qemu-system-x86_64: vm-type tdx not supported by KVM");
}

TEST(Diagnose, takes_a_very_long_line) {
    EXPECT_FALSE(diagnose(std::string(1 << 16, 'g')));
}

TEST(LastRelevantLine, is_the_last_that_says_something) {
    EXPECT_EQ(last_relevant_line("first\nsecond\r\n\n"
                                 "warning: host doesn't support requested feature: x\n  \n"),
              "second");
}

TEST(LastRelevantLine, is_empty_when_nothing_is_said) {
    EXPECT_EQ(last_relevant_line(""), "");
    EXPECT_EQ(last_relevant_line("warning: TDX forcibly sets the feature: CPUID\n"), "");
}

} // namespace
} // namespace host_runner::qemu

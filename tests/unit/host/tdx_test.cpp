// SPDX-License-Identifier: Apache-2.0
#include "host_runner/host/tdx.hpp"

#include <gmock/gmock.h>

#include "fakes/host_fixture.hpp"

namespace host_runner::host {
namespace {

using testing::HasSubstr;
using tests::HostFixture;

constexpr const char* parameter = "/sys/module/kvm_intel/parameters/tdx";
constexpr const char* remedy =
    "enable TDX and TME-MT in the BIOS, use a kernel >= 6.16 with kvm_intel.tdx=1 and see dmesg "
    "for virt/tdx; or take --tee none for a VM without protection, which this host can read";

VmTypesQuery answers(unsigned types) {
    return [types](const std::string&) -> Result<unsigned> {
        return types;
    };
}

TEST(CheckTdx, passes_a_host_with_all_three_facts) {
    HostFixture host;
    host.cpu_flags("vmx tdx_host_platform").write(parameter, "Y\n");
    EXPECT_TRUE(check_tdx(host.root(), answers(0b100001)));
}

TEST(CheckTdx, asks_the_device_of_the_given_root) {
    HostFixture host;
    host.cpu_flags("tdx_host_platform").write(parameter, "Y\n");
    std::string asked;
    ASSERT_TRUE(check_tdx(host.root(), [&](const std::string& device) -> Result<unsigned> {
        asked = device;
        return 1U << 5;
    }));
    EXPECT_EQ(asked, host.root().root + "/dev/kvm");
}

TEST(CheckTdx, names_every_missing_fact_in_a_stable_text) {
    HostFixture host;
    host.cpu_flags("vmx");
    const auto result = check_tdx(host.root());
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().code, ErrorCode::unsupported);
    EXPECT_EQ(result.error().message,
              "This host cannot start a TDX guest: the processor flag tdx_host_platform is not in "
              "/proc/cpuinfo; /sys/module/kvm_intel/parameters/tdx does not exist; /dev/kvm does "
              "not exist");
    EXPECT_EQ(result.error().hint, remedy);
}

TEST(CheckTdx, names_a_missing_processor_flag_alone) {
    HostFixture host;
    host.cpu_flags("vmx").write(parameter, "Y\n");
    EXPECT_EQ(check_tdx(host.root(), answers(1U << 5)).error().message,
              "This host cannot start a TDX guest: the processor flag tdx_host_platform is not in "
              "/proc/cpuinfo");
}

TEST(CheckTdx, names_a_module_parameter_that_is_off) {
    HostFixture host;
    host.cpu_flags("tdx_host_platform").write(parameter, "N\n");
    EXPECT_EQ(check_tdx(host.root(), answers(1U << 5)).error().message,
              "This host cannot start a TDX guest: /sys/module/kvm_intel/parameters/tdx is not Y");
}

TEST(CheckTdx, names_vm_types_without_tdx) {
    HostFixture host;
    host.cpu_flags("tdx_host_platform").write(parameter, "Y\n");
    EXPECT_EQ(check_tdx(host.root(), answers(0x1f)).error().message,
              "This host cannot start a TDX guest: KVM offers no TDX VMs (bit 5 of its VM types "
              "0x1f is clear)");
}

TEST(CheckTdx, passes_on_why_kvm_cannot_be_asked) {
    HostFixture host;
    host.cpu_flags("tdx_host_platform").write(parameter, "Y\n").write("/dev/kvm", "");
    const auto result = check_tdx(host.root()); // a plain file has no such ioctl
    ASSERT_FALSE(result);
    EXPECT_THAT(result.error().message, HasSubstr("Cannot ask"));
}

} // namespace
} // namespace host_runner::host

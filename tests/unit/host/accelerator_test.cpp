// SPDX-License-Identifier: Apache-2.0
#include "host_runner/host/accelerator.hpp"

#include <gmock/gmock.h>

#include "fakes/host_fixture.hpp"

namespace host_runner::host {
namespace {

using spec::AcceleratorChoice;
using testing::HasSubstr;
using tests::HostFixture;

TEST(ChooseAccelerator, takes_kvm_with_vmx_and_a_device_that_opens) {
    HostFixture host;
    host.cpu_flags("fpu vmx").write("/dev/kvm", "");
    const auto decision = choose_accelerator(AcceleratorChoice::automatic, host.root());
    ASSERT_TRUE(decision) << decision.error().describe();
    EXPECT_EQ(decision->kind, AcceleratorKind::kvm);
    EXPECT_EQ(decision->reason, "KVM: the processor has vmx and /dev/kvm opens");
}

TEST(ChooseAccelerator, takes_kvm_with_svm) {
    HostFixture host;
    host.cpu_flags("fpu svm").write("/dev/kvm", "");
    const auto decision = choose_accelerator(AcceleratorChoice::kvm, host.root());
    ASSERT_TRUE(decision) << decision.error().describe();
    EXPECT_THAT(decision->reason, HasSubstr("svm"));
}

TEST(ChooseAccelerator, takes_tcg_where_the_processor_lacks_virtualisation) {
    HostFixture host;
    host.cpu_flags("fpu xvmx").write("/dev/kvm", "");
    const auto decision = choose_accelerator(AcceleratorChoice::automatic, host.root());
    ASSERT_TRUE(decision);
    EXPECT_EQ(decision->kind, AcceleratorKind::tcg);
    EXPECT_THAT(decision->reason, HasSubstr("neither vmx nor svm"));
}

TEST(ChooseAccelerator, takes_tcg_where_the_device_is_missing) {
    HostFixture host;
    host.cpu_flags("vmx");
    const auto decision = choose_accelerator(AcceleratorChoice::automatic, host.root());
    ASSERT_TRUE(decision);
    EXPECT_EQ(decision->kind, AcceleratorKind::tcg);
    EXPECT_THAT(decision->reason, HasSubstr("/dev/kvm does not exist"));
}

TEST(ChooseAccelerator, takes_tcg_where_the_device_does_not_open) {
    HostFixture host;
    host.cpu_flags("vmx").write("/dev/kvm/folder", ""); // EISDIR, for root as well
    const auto decision = choose_accelerator(AcceleratorChoice::automatic, host.root());
    ASSERT_TRUE(decision);
    EXPECT_EQ(decision->kind, AcceleratorKind::tcg);
    EXPECT_THAT(decision->reason, HasSubstr("does not open"));
}

TEST(ChooseAccelerator, refuses_kvm_without_hardware_virtualisation) {
    HostFixture host;
    host.cpu_flags("fpu").write("/dev/kvm", "");
    const auto decision = choose_accelerator(AcceleratorChoice::kvm, host.root());
    ASSERT_FALSE(decision);
    EXPECT_EQ(decision.error().code, ErrorCode::unsupported);
    EXPECT_THAT(decision.error().hint, HasSubstr("BIOS"));
    EXPECT_THAT(decision.error().hint, HasSubstr("--accel tcg"));
}

TEST(ChooseAccelerator, refuses_kvm_without_device) {
    HostFixture host;
    host.cpu_flags("vmx");
    const auto decision = choose_accelerator(AcceleratorChoice::kvm, host.root());
    ASSERT_FALSE(decision);
    EXPECT_THAT(decision.error().hint, HasSubstr("modprobe kvm_intel"));
}

TEST(ChooseAccelerator, looks_at_nothing_for_tcg) {
    const auto decision = choose_accelerator(AcceleratorChoice::tcg, HostFixture().root());
    ASSERT_TRUE(decision);
    EXPECT_EQ(decision->kind, AcceleratorKind::tcg);
}

} // namespace
} // namespace host_runner::host

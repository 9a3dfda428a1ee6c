// SPDX-License-Identifier: Apache-2.0
#include "host_runner/host/iommu.hpp"

#include <gmock/gmock.h>

#include "fakes/host_fixture.hpp"

namespace host_runner::host {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using tests::HostFixture;

TEST(Iommus, are_named) {
    HostFixture host;
    host.write("/sys/class/iommu/dmar1/x", "").write("/sys/class/iommu/dmar0/x", "");
    EXPECT_THAT(*find_iommus(host.root()), ElementsAre("dmar0", "dmar1"));
}

TEST(Iommus, that_are_off_are_an_error_with_the_remedy) {
    const auto none = find_iommus(HostFixture().root());
    ASSERT_FALSE(none);
    EXPECT_EQ(none.error().code, ErrorCode::unsupported);
    EXPECT_THAT(none.error().hint, HasSubstr("intel_iommu=on"));
}

TEST(Iommufd, is_a_device_that_opens) {
    HostFixture host;
    EXPECT_EQ(check_iommufd(host.root()).error().code, ErrorCode::unsupported);
    host.write("/dev/iommu", "");
    EXPECT_TRUE(check_iommufd(host.root()));
}

TEST(VfioPci, is_a_driver_of_the_pci_bus) {
    HostFixture host;
    EXPECT_EQ(check_vfio_pci(host.root()).error().hint, "modprobe vfio-pci");
    host.write("/sys/bus/pci/drivers/vfio-pci/bind", "");
    EXPECT_TRUE(check_vfio_pci(host.root()));
}

} // namespace
} // namespace host_runner::host

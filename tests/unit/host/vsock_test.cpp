// SPDX-License-Identifier: Apache-2.0
#include "host_runner/host/vsock.hpp"

#include <gmock/gmock.h>

#include "fakes/fake_vsock_device.hpp"
#include "fakes/host_fixture.hpp"

namespace host_runner::host {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using tests::FakeVsockDevice;

TEST(ClaimCid, gives_the_lowest_free_one_with_its_descriptor) {
    FakeVsockDevice device;
    device.taken = {1000, 1001, 1003};
    const auto claimed = claim_cid(device);
    ASSERT_TRUE(claimed) << claimed.error().describe();
    EXPECT_EQ(claimed->cid, 1002U);
    EXPECT_TRUE(claimed->fd);
    EXPECT_THAT(device.asked, ElementsAre(1000, 1001, 1002));
}

TEST(ClaimCid, never_gives_one_twice) {
    FakeVsockDevice device;
    const auto first = claim_cid(device);
    const auto second = claim_cid(device);
    ASSERT_TRUE(first && second);
    EXPECT_NE(first->cid, second->cid);
}

TEST(ClaimCid, does_not_ask_for_claimed_ones) {
    FakeVsockDevice device;
    const auto claimed = claim_cid(device, [](std::uint32_t cid) { return cid < 1010; });
    ASSERT_TRUE(claimed);
    EXPECT_THAT(device.asked, ElementsAre(1010));
}

TEST(ClaimCid, says_when_all_are_taken) {
    FakeVsockDevice device;
    device.error = EADDRINUSE;
    const auto claimed = claim_cid(device);
    ASSERT_FALSE(claimed);
    EXPECT_EQ(claimed.error().code, ErrorCode::resource_exhausted);
    EXPECT_EQ(device.asked.size(), 1000U);
}

TEST(ClaimCid, stops_at_another_error) {
    FakeVsockDevice device;
    device.error = EIO;
    const auto claimed = claim_cid(device);
    ASSERT_FALSE(claimed);
    EXPECT_EQ(claimed.error().sys_errno, EIO);
    EXPECT_EQ(device.asked.size(), 1U);
}

TEST(ClaimCid, passes_on_that_there_is_no_device) {
    FakeVsockDevice device;
    device.missing = true;
    EXPECT_EQ(claim_cid(device).error().code, ErrorCode::unsupported);
}

TEST(VhostVsock, says_which_module_to_load) {
    VhostVsock device(tests::HostFixture().root());
    const auto fd = device.open();
    ASSERT_FALSE(fd);
    EXPECT_EQ(fd.error().code, ErrorCode::unsupported);
    EXPECT_THAT(fd.error().hint, HasSubstr("modprobe vhost_vsock"));
}

TEST(VhostVsock, gives_the_errno_of_a_refused_claim) {
    tests::HostFixture host;
    host.write("/dev/vhost-vsock", "");
    VhostVsock device(host.root());
    const auto fd = device.open();
    ASSERT_TRUE(fd);
    EXPECT_EQ(device.set_guest_cid(fd->get(), 1000), ENOTTY); // a plain file
}

} // namespace
} // namespace host_runner::host

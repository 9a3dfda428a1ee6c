// SPDX-License-Identifier: Apache-2.0
#include "host_runner/host/tap.hpp"

#include <cerrno>
#include <string>
#include <vector>

#include <fcntl.h>
#include <gmock/gmock.h>

namespace host_runner::host {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class FakeTaps final : public TapMaker {
public:
    int open_device(UniqueFd& device) override {
        if (device_error == 0)
            device.reset(::open("/dev/null", O_RDWR | O_CLOEXEC));
        return device_error;
    }
    int make_tap(int /*device*/, const std::string& name) override {
        steps.push_back("make " + name);
        return tap_error;
    }
    int add_to_bridge(const std::string& bridge, const std::string& name) override {
        steps.push_back("add " + name + " to " + bridge);
        return add_error;
    }
    int set_up(const std::string& name) override {
        steps.push_back("up " + name);
        return up_error;
    }
    bool interface_exists(const std::string& name) override {
        return name == "br0" || name == "eth0";
    }
    bool is_bridge(const std::string& name) override {
        return name == "br0";
    }

    int device_error = 0, tap_error = 0, add_error = 0, up_error = 0;
    std::vector<std::string> steps;
};

TEST(Tap, is_named_after_its_instance) {
    EXPECT_EQ(tap_name("0123456789ab"), "hr-01234567");
}

TEST(Tap, joins_its_bridge_before_it_is_up) {
    FakeTaps kernel;
    const auto fd = open_tap(kernel, "br0", "hr-01234567");
    ASSERT_TRUE(fd) << fd.error().describe();
    EXPECT_TRUE(*fd);
    EXPECT_THAT(kernel.steps,
                ElementsAre("make hr-01234567", "add hr-01234567 to br0", "up hr-01234567"));
}

TEST(Tap, needs_a_bridge_that_is_one) {
    FakeTaps kernel;
    const auto missing = open_tap(kernel, "br9", "hr-x");
    ASSERT_FALSE(missing);
    EXPECT_EQ(missing.error().code, ErrorCode::not_found);
    EXPECT_THAT(missing.error().message, HasSubstr("br9"));
    const auto other = check_bridge(kernel, "eth0");
    ASSERT_FALSE(other);
    EXPECT_EQ(other.error().code, ErrorCode::invalid_argument);
    EXPECT_THAT(other.error().message, HasSubstr("eth0 is not a bridge"));
    EXPECT_THAT(kernel.steps, IsEmpty());
}

TEST(Tap, says_which_right_is_missing) {
    FakeTaps kernel;
    kernel.tap_error = EPERM;
    const auto checked = check_bridge(kernel, "br0");
    ASSERT_FALSE(checked);
    EXPECT_EQ(checked.error().code, ErrorCode::permission_denied);
    EXPECT_THAT(checked.error().message, HasSubstr("CAP_NET_ADMIN"));
    EXPECT_THAT(checked.error().hint, HasSubstr("setcap"));
}

TEST(Tap, says_that_the_kernel_has_none) {
    FakeTaps kernel;
    kernel.device_error = ENOENT;
    const auto checked = check_bridge(kernel, "br0");
    ASSERT_FALSE(checked);
    EXPECT_EQ(checked.error().code, ErrorCode::unsupported);
    EXPECT_EQ(checked.error().hint, "modprobe tun");
}

TEST(Tap, names_the_step_that_failed) {
    FakeTaps kernel;
    kernel.add_error = EXFULL;
    EXPECT_THAT(open_tap(kernel, "br0", "hr-x").error().message,
                HasSubstr("put the tap hr-x into bridge br0"));
    kernel = {};
    kernel.up_error = EINVAL;
    EXPECT_THAT(open_tap(kernel, "br0", "hr-x").error().message, HasSubstr("set the tap hr-x up"));
}

/// What needs no rights of the real one.
TEST(KernelTaps, knows_the_loopback_and_that_it_is_no_bridge) {
    KernelTaps kernel;
    EXPECT_TRUE(kernel.interface_exists("lo"));
    EXPECT_FALSE(kernel.is_bridge("lo"));
    EXPECT_FALSE(kernel.interface_exists("hr-none"));
    EXPECT_FALSE(kernel.is_bridge("hr-none"));
}

} // namespace
} // namespace host_runner::host

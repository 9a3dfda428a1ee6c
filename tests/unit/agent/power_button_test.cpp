// SPDX-License-Identifier: Apache-2.0
#include "host_runner/agent/power_button.hpp"

#include <cstring>

#include <linux/input.h>

#include <gmock/gmock.h>

#include "fakes/temporary_directory.hpp"

namespace host_runner::agent {
namespace {

std::string record(int type, int code, int value) {
    input_event event{};
    event.type = static_cast<unsigned short>(type);
    event.code = static_cast<unsigned short>(code);
    event.value = value;
    std::string bytes(sizeof event, '\0');
    std::memcpy(bytes.data(), &event, sizeof event);
    return bytes;
}

TEST(PowerButton, is_pressed_by_the_power_key_among_other_records) {
    EXPECT_TRUE(holds_power_press(record(EV_SYN, 0, 0) + record(EV_KEY, KEY_POWER, 1)));
}

TEST(PowerButton, ignores_the_release_and_other_keys) {
    EXPECT_FALSE(holds_power_press(record(EV_KEY, KEY_POWER, 0)));
    EXPECT_FALSE(holds_power_press(record(EV_KEY, KEY_A, 1)));
    EXPECT_FALSE(holds_power_press(record(EV_REL, KEY_POWER, 1)));
}

TEST(PowerButton, ignores_half_a_record) {
    EXPECT_FALSE(
        holds_power_press(record(EV_KEY, KEY_POWER, 1).substr(0, sizeof(input_event) - 1)));
}

TEST(PowerButton, says_which_modules_are_missing_without_input_devices) {
    const tests::TemporaryDirectory folder;
    auto loop = EventLoop::create();
    ASSERT_TRUE(loop);
    const auto button = PowerButton::watch(**loop, folder.path(), [] {});
    ASSERT_FALSE(button);
    EXPECT_THAT(button.error().hint, testing::HasSubstr("evdev"));
}

} // namespace
} // namespace host_runner::agent

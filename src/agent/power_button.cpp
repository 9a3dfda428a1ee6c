// SPDX-License-Identifier: Apache-2.0
#include "host_runner/agent/power_button.hpp"

#include <array>
#include <cstring>

#include <fcntl.h>
#include <linux/input.h>
#include <unistd.h>

#include <fmt/format.h>

#include "host_runner/base/files.hpp"

namespace host_runner::agent {

bool holds_power_press(std::string_view bytes) {
    bool pressed = false;
    for (; bytes.size() >= sizeof(input_event); bytes.remove_prefix(sizeof(input_event))) {
        input_event event{};
        std::memcpy(&event, bytes.data(), sizeof event);
        pressed = pressed || (event.type == EV_KEY && event.code == KEY_POWER && event.value == 1);
    }
    return pressed;
}

Result<PowerButton> PowerButton::watch(EventLoop& loop, const std::string& input_directory,
                                       const std::function<void()>& on_press) {
    PowerButton button;
    if (const auto names = list_directory(input_directory))
        for (const auto& name : *names) {
            UniqueFd fd(name.starts_with("event") ? ::open(join_path(input_directory, name).c_str(),
                                                           O_RDONLY | O_NONBLOCK | O_CLOEXEC)
                                                  : -1);
            if (!fd)
                continue;
            const int device = fd.get();
            HR_CHECK(loop.watch(device, EPOLLIN, [&loop, device, on_press](std::uint32_t) {
                std::array<char, 64 * sizeof(input_event)> buffer{};
                const ssize_t count = ::read(device, buffer.data(), buffer.size());
                if (count > 0 && holds_power_press(std::string_view(
                                     buffer.data(), static_cast<std::size_t>(count))))
                    on_press();
                else if (count == 0 || (count < 0 && errno != EAGAIN && errno != EINTR))
                    loop.unwatch(device); // the device is gone
            }));
            button.devices_.push_back(std::move(fd));
        }
    if (button.devices_.empty())
        return fail(ErrorCode::not_found,
                    fmt::format("There is no input device in {}", input_directory),
                    "the image needs the kernel modules button and evdev");
    return button;
}

} // namespace host_runner::agent

// SPDX-License-Identifier: Apache-2.0
#include "host_runner/agent/channel_ports.hpp"

#include <thread>

#include <fmt/format.h>

#include "host_runner/base/files.hpp"

namespace host_runner::agent {

Result<std::string> find_channel_port(const std::string& sys_class, const std::string& devices,
                                      std::string_view name, std::chrono::milliseconds timeout) {
    const auto deadline = std::chrono::steady_clock::now() + timeout;
    for (;;) {
        if (const auto ports = list_directory(sys_class))
            for (const auto& port : *ports) {
                auto given = read_file(join_path(sys_class, port + "/name"), 256);
                const auto device = join_path(devices, port);
                if (given && *given == fmt::format("{}\n", name) && path_exists(device))
                    return device;
            }
        if (std::chrono::steady_clock::now() >= deadline)
            return fail(ErrorCode::not_found,
                        fmt::format("There is no virtio-serial port {}", name),
                        "the runner must attach the channel's ports, see its command line");
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
}

} // namespace host_runner::agent

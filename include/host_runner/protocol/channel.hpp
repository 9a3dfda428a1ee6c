// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The virtio-serial ports between the runner and the agent of our own image. Their set is fixed:
/// it is part of the measured device layout.

#include <array>
#include <string_view>

namespace host_runner::protocol {

struct ChannelPort {
    unsigned number;             ///< `nr=` of virtserialport; 0 is reserved for a console.
    std::string_view guest_name; ///< /dev/virtio-ports/<guest_name>
    std::string_view purpose;
};

inline constexpr std::array<ChannelPort, 8> channel_ports{{
    {1, "host-runner.1", "host API: the guest asks"},
    {2, "host-runner.2", "guest API: the host asks, short requests"},
    {3, "host-runner.3", "guest API: exec and following logs"},
    {4, "host-runner.4", "key release: the guest asks"},
    {5, "host-runner.5", "invocations"},
    {6, "host-runner.6", "invocations"},
    {7, "host-runner.7", "invocations"},
    {8, "host-runner.8", "invocations"},
}};

inline constexpr unsigned host_api_port = 1;
inline constexpr unsigned guest_api_port = 2;
inline constexpr unsigned guest_stream_port = 3;
inline constexpr std::array<unsigned, 4> invocation_ports{5, 6, 7, 8};

} // namespace host_runner::protocol

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "host_runner/base/error.hpp"

namespace host_runner::spec {

enum class Protocol { tcp, udp };
[[nodiscard]] std::string_view to_string(Protocol protocol) noexcept;

/// A host port forwarded to a port of the guest.
struct PortMapping {
    Protocol protocol = Protocol::tcp;
    std::string host_address = "127.0.0.1"; ///< A literal IPv4 address.
    std::uint16_t host_port = 0;            ///< 0: the runner picks a free one.
    std::uint16_t guest_port = 0;
    bool operator==(const PortMapping&) const = default;
};

/// "tcp:0.0.0.0:443:443", "udp::53:53" or "tcp:10022:22" (an empty or missing address is
/// 127.0.0.1), and lists of them with commas.
/// @errors invalid_argument: names the part, the value, the rule and an example
[[nodiscard]] Result<std::vector<PortMapping>> parse_port_mappings(std::string_view text);
/// "tcp:127.0.0.1:8080:80"
[[nodiscard]] std::string format_port_mapping(const PortMapping& mapping);

/// True when both cannot be bound at once: same protocol and port (not 0), equal or unspecified
/// address.
[[nodiscard]] bool conflicts(const PortMapping& a, const PortMapping& b) noexcept;

} // namespace host_runner::spec

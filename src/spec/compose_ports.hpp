// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "host_runner/base/error.hpp"
#include "host_runner/spec/port_mapping.hpp"

namespace host_runner::spec {

/// The Compose Specification's short form: [[HOST_IP:]HOST_PORT:]GUEST_PORT[/PROTOCOL], where the
/// ports may be ranges ("3000-3005"). Without a host port a free one is taken; without an address
/// it is 127.0.0.1, where Docker takes all addresses.
/// @errors invalid_argument
[[nodiscard]] Result<std::vector<PortMapping>> parse_compose_port(std::string_view text);

/// The same from its parts, each as written; an empty one is not there.
struct ComposePort {
    std::string_view host_address;
    std::string_view host_ports;
    std::string_view guest_ports;
    std::string_view protocol;
};
[[nodiscard]] Result<std::vector<PortMapping>> make_compose_ports(std::string_view text,
                                                                  const ComposePort& port);

} // namespace host_runner::spec

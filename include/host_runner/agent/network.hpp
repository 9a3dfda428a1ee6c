// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The guest's network: the loopback device, and the first network card by DHCP.

#include <string>
#include <string_view>
#include <vector>

#include "host_runner/base/error.hpp"
#include "host_runner/base/process.hpp"

namespace host_runner::agent {

inline constexpr std::string_view network_card = "eth0";

/// Sets IFF_UP. @errors by errno
[[nodiscard]] Result<void> bring_up_interface(std::string_view name);

/// Lets every user listen on ports below 1024: nobody but the services is here, and they are not
/// root. Source: linux Documentation/networking/ip-sysctl.rst, ip_unprivileged_port_start
[[nodiscard]] Result<void> allow_low_ports();

/// Starts busybox's `udhcpc` on network_card; it exits with 0 once it has a lease (a background
/// process then renews it), with 1 when nobody answered. The image's /etc/udhcpc/default.script
/// applies the lease. Output goes to `output_fd`. Launch from the main thread.
[[nodiscard]] Result<ChildProcess> start_dhcp(ProcessLauncher& launcher, int output_fd);

/// /etc/hosts: localhost, the machine's own name, and each service's name on the loopback address,
/// so that services find each other by name as Compose users expect.
[[nodiscard]] std::string hosts_file(std::string_view host_name,
                                     const std::vector<std::string>& services);

/// Where a "HOST:PORT" is: the address it names, or that of a name in `hosts_text` (as of
/// hosts_file()). A static program has no resolver for other names.
/// @return "IP:PORT", "[IP]:PORT" for IPv6
/// @errors not_found: another name
[[nodiscard]] Result<std::string> locate_authority(std::string_view hosts_text,
                                                   std::string_view authority);

} // namespace host_runner::agent

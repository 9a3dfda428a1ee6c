// SPDX-License-Identifier: Apache-2.0
#include "host_runner/agent/network.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <sstream>

#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <fmt/format.h>

#include "host_runner/base/unique_fd.hpp"

namespace host_runner::agent {

Result<void> bring_up_interface(std::string_view name) {
    const UniqueFd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    if (!fd)
        return fail_errno("Cannot make a socket", errno);
    struct ifreq request {};
    std::copy_n(name.begin(), std::min<std::size_t>(name.size(), IFNAMSIZ - 1),
                static_cast<char*>(request.ifr_name));
    if (::ioctl(fd.get(), SIOCGIFFLAGS, &request) != 0)
        return fail_errno(fmt::format("Cannot look at the interface {}", name), errno);
    request.ifr_flags = static_cast<short>(request.ifr_flags | IFF_UP);
    if (::ioctl(fd.get(), SIOCSIFFLAGS, &request) != 0)
        return fail_errno(fmt::format("Cannot bring up the interface {}", name), errno);
    return {};
}

Result<void> allow_low_ports() {
    const UniqueFd fd(
        ::open("/proc/sys/net/ipv4/ip_unprivileged_port_start", O_WRONLY | O_CLOEXEC));
    if (!fd || ::write(fd.get(), "0", 1) != 1)
        return fail_errno("Cannot set ip_unprivileged_port_start", errno);
    return {};
}

Result<ChildProcess> start_dhcp(ProcessLauncher& launcher, int output_fd) {
    ProcessSpec spec;
    // Four requests, two seconds apart; -n: exit when nobody answered to any of them.
    spec.argv = {"udhcpc", "-i", std::string(network_card),   "-n", "-t", "4", "-T",
                 "2",      "-s", "/etc/udhcpc/default.script"};
    spec.stdout_fd = output_fd;
    spec.stderr_fd = output_fd;
    return launcher.launch(spec);
}

std::string hosts_file(std::string_view host_name, const std::vector<std::string>& services) {
    std::string text = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n";
    text += fmt::format("127.0.1.1 {}\n", host_name);
    for (const auto& service : services)
        if (service != "localhost")
            text += fmt::format("127.0.0.1 {}\n", service);
    return text;
}

Result<std::string> locate_authority(std::string_view hosts_text, std::string_view authority) {
    const auto colon = std::min(authority.rfind(':'), authority.size());
    const auto host = authority.substr(0, colon);
    const auto port = authority.substr(colon);
    std::array<unsigned char, sizeof(in6_addr)> address{};
    if (::inet_pton(AF_INET, std::string(host).c_str(), address.data()) == 1)
        return std::string(authority);
    if (host.starts_with('[') && host.ends_with(']') &&
        ::inet_pton(AF_INET6, std::string(host.substr(1, host.size() - 2)).c_str(),
                    address.data()) == 1)
        return std::string(authority);
    std::istringstream lines{std::string(hosts_text)};
    for (std::string line; std::getline(lines, line);) {
        std::istringstream words(line);
        std::string where;
        words >> where;
        for (std::string name; words >> name;)
            if (name == host && where.find(':') == std::string::npos)
                return fmt::format("{}{}", where, port);
    }
    return fail(ErrorCode::not_found, fmt::format("The VM does not know where {} is", host),
                "write its address: only the names of services are known, others are not looked up "
                "in this version");
}

} // namespace host_runner::agent

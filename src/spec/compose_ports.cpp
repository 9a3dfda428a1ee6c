// SPDX-License-Identifier: Apache-2.0
#include "compose_ports.hpp"

#include <optional>

#include <fmt/format.h>

#include <arpa/inet.h>

#include "text.hpp"

namespace host_runner::spec {

namespace {

/// More would be a mistake, and each one costs QEMU a listening socket.
constexpr std::uint32_t max_range = 100;

struct Range {
    std::uint16_t first = 0;
    std::uint16_t last = 0;
    [[nodiscard]] std::uint32_t size() const {
        return std::uint32_t{last} - first + 1;
    }
};

std::optional<Range> parse_range(std::string_view text) {
    const auto parts = split(text, '-');
    const auto first = parse_number<std::uint16_t>(parts.front());
    const auto last = parse_number<std::uint16_t>(parts.back());
    if (parts.size() > 2 || !first || !last || *last < *first)
        return std::nullopt;
    return Range{*first, *last};
}

tl::unexpected<Error> bad_port(std::string_view text, std::string_view rule) {
    return fail(ErrorCode::invalid_argument,
                fmt::format("'{}' is not a port mapping: {}", text, rule),
                "write \"HOST_PORT:GUEST_PORT\", e.g. \"8080:80\", \"0.0.0.0:443:443\" or "
                "\"53:53/udp\"");
}

} // namespace

Result<std::vector<PortMapping>> make_compose_ports(std::string_view text,
                                                    const ComposePort& port) {
    PortMapping mapping;
    if (port.protocol == "udp")
        mapping.protocol = Protocol::udp;
    else if (!port.protocol.empty() && port.protocol != "tcp")
        return bad_port(text, fmt::format("its protocol '{}' is not tcp or udp", port.protocol));
    if (!port.host_address.empty()) {
        mapping.host_address = port.host_address;
        in_addr ignored{};
        if (::inet_pton(AF_INET, mapping.host_address.c_str(), &ignored) != 1)
            return bad_port(
                text, fmt::format("its address '{}' is not an IPv4 address", port.host_address));
    }
    const auto guest = parse_range(port.guest_ports);
    if (!guest || guest->first == 0)
        return bad_port(text, fmt::format("its guest port '{}' is not a number from 1 to 65535",
                                          port.guest_ports));
    const auto host = parse_range(port.host_ports.empty() ? "0" : port.host_ports);
    if (!host || (host->first == 0 && host->size() > 1))
        return bad_port(text, fmt::format("its host port '{}' is not a number from 0 to 65535",
                                          port.host_ports));
    const bool any_host_port = host->first == 0;
    if (!any_host_port && host->size() != guest->size())
        return bad_port(text, "its ranges differ in length");
    if (guest->size() > max_range)
        return bad_port(text, fmt::format("it has more than {} ports", max_range));
    std::vector<PortMapping> mappings;
    for (std::uint32_t i = 0; i < guest->size(); ++i) {
        mapping.guest_port = static_cast<std::uint16_t>(guest->first + i);
        mapping.host_port = static_cast<std::uint16_t>(any_host_port ? 0 : host->first + i);
        mappings.push_back(mapping);
    }
    return mappings;
}

Result<std::vector<PortMapping>> parse_compose_port(std::string_view text) {
    const auto slash = split(text, '/');
    const auto parts = split(slash.front(), ':');
    if (slash.size() > 2 || parts.size() > 3)
        return bad_port(text, "it has too many parts");
    ComposePort port;
    port.guest_ports = parts.back();
    if (parts.size() >= 2)
        port.host_ports = parts[parts.size() - 2];
    if (parts.size() == 3)
        port.host_address = parts.front();
    if (slash.size() == 2)
        port.protocol = slash.back();
    return make_compose_ports(text, port);
}

} // namespace host_runner::spec

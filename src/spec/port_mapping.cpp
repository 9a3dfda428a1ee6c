// SPDX-License-Identifier: Apache-2.0
#include "host_runner/spec/port_mapping.hpp"

#include <arpa/inet.h>

#include <fmt/format.h>

#include "text.hpp"

namespace host_runner::spec {

namespace {

constexpr std::string_view unspecified_address = "0.0.0.0";

tl::unexpected<Error> bad_mapping(std::string_view text, std::string_view rule) {
    return fail(ErrorCode::invalid_argument,
                fmt::format("'{}' is not a port mapping: {}", text, rule),
                "write tcp|udp:HOST_IP:HOST_PORT:GUEST_PORT, e.g. tcp:0.0.0.0:443:443, or "
                "tcp::8080:80 for 127.0.0.1; host port 0 is a free one");
}

Result<std::uint16_t> parse_port(std::string_view mapping, std::string_view side,
                                 std::string_view text) {
    const auto port = parse_number<std::uint16_t>(text);
    if (!port)
        return bad_mapping(mapping, fmt::format("its {} port '{}' is not a number from {} to 65535",
                                                side, text, side == "host" ? 0 : 1));
    return *port;
}

Result<PortMapping> parse_one(std::string_view text) {
    const auto parts = split(text, ':');
    if (parts.size() != 3 && parts.size() != 4)
        return bad_mapping(
            text, fmt::format("it has {} part{} between colons, not 4 (or 3 without an address)",
                              parts.size(), parts.size() == 1 ? "" : "s"));
    PortMapping mapping;
    if (parts.front() == "udp")
        mapping.protocol = Protocol::udp;
    else if (parts.front() != "tcp")
        return bad_mapping(text, fmt::format("its protocol '{}' is not tcp or udp", parts.front()));
    if (parts.size() == 4 && !parts[1].empty()) {
        mapping.host_address = parts[1];
        in_addr ignored{};
        if (::inet_pton(AF_INET, mapping.host_address.c_str(), &ignored) != 1)
            return bad_mapping(text,
                               fmt::format("its address '{}' is not an IPv4 address", parts[1]));
    }
    HR_TRY(mapping.host_port, parse_port(text, "host", parts[parts.size() - 2]));
    HR_TRY(mapping.guest_port, parse_port(text, "guest", parts.back()));
    if (mapping.guest_port == 0)
        return bad_mapping(text, "its guest port must not be 0");
    return mapping;
}

} // namespace

std::string_view to_string(Protocol protocol) noexcept {
    return protocol == Protocol::tcp ? "tcp" : "udp";
}

Result<std::vector<PortMapping>> parse_port_mappings(std::string_view text) {
    std::vector<PortMapping> mappings;
    for (const auto part : split(text, ',')) {
        HR_TRY(auto mapping, parse_one(trim(part)));
        mappings.push_back(std::move(mapping));
    }
    return mappings;
}

std::string format_port_mapping(const PortMapping& mapping) {
    return fmt::format("{}:{}:{}:{}", to_string(mapping.protocol), mapping.host_address,
                       mapping.host_port, mapping.guest_port);
}

bool conflicts(const PortMapping& a, const PortMapping& b) noexcept {
    return a.protocol == b.protocol && a.host_port == b.host_port && a.host_port != 0 &&
           (a.host_address == b.host_address || a.host_address == unspecified_address ||
            b.host_address == unspecified_address);
}

} // namespace host_runner::spec

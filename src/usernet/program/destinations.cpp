// SPDX-License-Identifier: Apache-2.0
#include "host_runner/usernet/program/destinations.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include <arpa/inet.h>
#include <netinet/in.h>

namespace host_runner::usernet::program {

namespace {

constexpr std::size_t max_nameservers = 16;
constexpr std::uint16_t dns_port = 53;
constexpr std::size_t mapped_prefix_bytes = 12;

constexpr std::array<std::uint8_t, 16> ipv6_loopback{0, 0, 0, 0, 0, 0, 0, 0,
                                                     0, 0, 0, 0, 0, 0, 0, 1};

bool is_ipv4(const std::array<std::uint8_t, 16>& address) noexcept {
    return std::all_of(address.begin(), address.begin() + 10,
                       [](std::uint8_t byte) { return byte == 0; }) &&
           address[10] == 0xff && address[11] == 0xff;
}

} // namespace

bool Endpoint::is_loopback() const noexcept {
    if (is_ipv4(address))
        return address[mapped_prefix_bytes] == 127 || address[mapped_prefix_bytes] == 0;
    // ::a.b.c.d (RFC 4291, 2.5.5.1) too: no such address is in use, so nothing is lost by it.
    const bool low = std::all_of(address.begin(), address.begin() + mapped_prefix_bytes,
                                 [](std::uint8_t byte) { return byte == 0; });
    return address == ipv6_loopback || low;
}

std::optional<Endpoint> endpoint_of(const sockaddr* address, socklen_t length) noexcept {
    if (address == nullptr || length < sizeof(sa_family_t))
        return std::nullopt;
    // Copied, because nothing says that the address is aligned.
    if (address->sa_family == AF_INET && length >= sizeof(sockaddr_in)) {
        sockaddr_in name{};
        std::memcpy(&name, address, sizeof name);
        return ipv4_endpoint(ntohl(name.sin_addr.s_addr), ntohs(name.sin_port));
    }
    if (address->sa_family == AF_INET6 && length >= sizeof(sockaddr_in6)) {
        sockaddr_in6 name{};
        std::memcpy(&name, address, sizeof name);
        Endpoint endpoint;
        std::memcpy(endpoint.address.data(), &name.sin6_addr, endpoint.address.size());
        endpoint.port = ntohs(name.sin6_port);
        return endpoint;
    }
    return std::nullopt;
}

Endpoint ipv4_endpoint(std::uint32_t address, std::uint16_t port) noexcept {
    Endpoint endpoint;
    endpoint.address[10] = endpoint.address[11] = 0xff;
    for (unsigned i = 0; i < 4; ++i)
        endpoint.address.at(mapped_prefix_bytes + i) =
            static_cast<std::uint8_t>(address >> (24U - 8U * i));
    endpoint.port = port;
    return endpoint;
}

std::vector<Endpoint> nameservers_of(std::string_view resolv_conf) {
    constexpr std::string_view keyword = "nameserver";
    constexpr std::string_view blanks = " \t\r";
    std::vector<Endpoint> servers;
    while (!resolv_conf.empty() && servers.size() < max_nameservers) {
        const auto end = std::min(resolv_conf.find('\n'), resolv_conf.size());
        auto line = resolv_conf.substr(0, end);
        resolv_conf.remove_prefix(std::min(end + 1, resolv_conf.size()));
        if (!line.starts_with(keyword))
            continue;
        line.remove_prefix(keyword.size());
        const auto first = line.find_first_not_of(blanks);
        if (first == 0 || first == std::string_view::npos)
            continue;
        line.remove_prefix(first);
        const std::string text(line.substr(0, line.find_first_of(blanks)));
        in_addr ipv4{};
        Endpoint server;
        if (::inet_pton(AF_INET, text.c_str(), &ipv4) == 1) {
            servers.push_back(ipv4_endpoint(ntohl(ipv4.s_addr), dns_port));
        } else if (::inet_pton(AF_INET6, text.c_str(), server.address.data()) == 1) {
            server.port = dns_port;
            servers.push_back(server);
        }
    }
    return servers;
}

Destinations::Destinations(const Settings& settings, std::vector<Endpoint> nameservers)
    : egress_(settings.egress), host_services_(settings.host_services),
      nameservers_(std::move(nameservers)) {
    for (const auto& mapping : settings.ports)
        if (mapping.protocol == spec::Protocol::udp)
            forwards_.push_back(mapping.host_port);
}

int Destinations::check(Transport transport, const Endpoint& to,
                        const std::optional<Endpoint>& local) const noexcept {
    const auto among = [](const auto& list, const auto& wanted) {
        return std::find(list.begin(), list.end(), wanted) != list.end();
    };
    if (transport == Transport::tcp && among(host_services_, to.port) &&
        to == ipv4_endpoint(INADDR_LOOPBACK, to.port))
        return 0;
    if (transport == Transport::udp && local && is_forwarded(*local) &&
        among(conversations_, Conversation{local->port, to}))
        return 0;
    if (egress_ && (!to.is_loopback() || among(nameservers_, to)))
        return 0;
    // Of ECONNREFUSED libslirp makes the reset of a closed port, of others an ICMP message.
    return to.is_loopback() ? ECONNREFUSED : ENETUNREACH;
}

bool Destinations::is_forwarded(const Endpoint& local) const noexcept {
    return std::find(forwards_.begin(), forwards_.end(), local.port) != forwards_.end();
}

void Destinations::note_sender(const Endpoint& local, const Endpoint& from) noexcept {
    const Conversation conversation{local.port, from};
    if (std::find(conversations_.begin(), conversations_.end(), conversation) !=
        conversations_.end())
        return;
    conversations_.at(next_conversation_) = conversation;
    next_conversation_ = (next_conversation_ + 1) % conversations_.size();
}

} // namespace host_runner::usernet::program

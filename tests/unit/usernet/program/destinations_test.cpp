// SPDX-License-Identifier: Apache-2.0
#include "host_runner/usernet/program/destinations.hpp"

#include <cerrno>

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <netinet/in.h>

namespace host_runner::usernet::program {
namespace {

using testing::ElementsAre;
using testing::SizeIs;

constexpr std::uint16_t port = 5432;

/// As the kernel would get it.
Endpoint endpoint(const char* text, std::uint16_t number = port) {
    sockaddr_in ipv4{};
    ipv4.sin_family = AF_INET;
    ipv4.sin_port = htons(number);
    if (::inet_pton(AF_INET, text, &ipv4.sin_addr) == 1)
        return endpoint_of(reinterpret_cast<const sockaddr*>(&ipv4), sizeof ipv4).value();
    sockaddr_in6 ipv6{};
    ipv6.sin6_family = AF_INET6;
    ipv6.sin6_port = htons(number);
    EXPECT_EQ(::inet_pton(AF_INET6, text, &ipv6.sin6_addr), 1) << text;
    return endpoint_of(reinterpret_cast<const sockaddr*>(&ipv6), sizeof ipv6).value();
}

int check(const Settings& settings, const Endpoint& to, Transport transport = Transport::tcp) {
    return Destinations(settings, {}).check(transport, to, std::nullopt);
}

constexpr auto loopback_addresses = {"127.0.0.1",     "127.1.2.3", "0.0.0.0",  "0.1.2.3",
                                     "::1",           "::",        "::7f00:1", "::ffff:127.0.0.1",
                                     "::ffff:0.0.0.0"};
constexpr auto outside_addresses = {"192.0.2.7", "10.0.2.99", "2001:db8::1", "::ffff:192.0.2.7"};

TEST(Endpoint, knows_what_never_leaves_this_host) {
    for (const char* address : loopback_addresses)
        EXPECT_TRUE(endpoint(address).is_loopback()) << address;
    for (const char* address : outside_addresses)
        EXPECT_FALSE(endpoint(address).is_loopback()) << address;
}

TEST(Endpoint, is_the_same_however_ipv4_is_written) {
    EXPECT_EQ(endpoint("192.0.2.7"), endpoint("::ffff:192.0.2.7"));
}

TEST(Endpoint, is_none_of_what_is_cut_short_or_of_another_family) {
    sockaddr_in name{};
    name.sin_family = AF_INET;
    const auto* address = reinterpret_cast<const sockaddr*>(&name);
    EXPECT_FALSE(endpoint_of(address, sizeof name - 1));
    EXPECT_FALSE(endpoint_of(address, 0));
    EXPECT_FALSE(endpoint_of(nullptr, sizeof name));
    name.sin_family = AF_UNIX;
    EXPECT_FALSE(endpoint_of(address, sizeof name));
}

TEST(Destinations, closed_let_nothing_through) {
    for (const auto transport : {Transport::tcp, Transport::udp}) {
        for (const char* address : loopback_addresses)
            EXPECT_EQ(check({}, endpoint(address), transport), ECONNREFUSED) << address;
        for (const char* address : outside_addresses)
            EXPECT_EQ(check({}, endpoint(address), transport), ENETUNREACH) << address;
    }
}

TEST(Destinations, open_let_everything_through_but_the_loopback) {
    const Settings open{.egress = true, .host_services = {}, .ports = {}, .user = {}};
    for (const auto transport : {Transport::tcp, Transport::udp}) {
        for (const char* address : loopback_addresses)
            EXPECT_EQ(check(open, endpoint(address), transport), ECONNREFUSED) << address;
        for (const char* address : outside_addresses)
            EXPECT_EQ(check(open, endpoint(address), transport), 0) << address;
    }
}

TEST(Destinations, a_service_is_one_port_of_one_address_by_tcp) {
    for (const bool egress : {false, true}) {
        const Settings with{.egress = egress, .host_services = {port}, .ports = {}, .user = {}};
        EXPECT_EQ(check(with, endpoint("127.0.0.1")), 0);
        EXPECT_EQ(check(with, endpoint("::ffff:127.0.0.1")), 0) << "the same address";
        EXPECT_EQ(check(with, endpoint("127.0.0.1", port + 1)), ECONNREFUSED);
        EXPECT_EQ(check(with, endpoint("127.0.0.1", port - 1)), ECONNREFUSED);
        EXPECT_EQ(check(with, endpoint("127.0.0.1"), Transport::udp), ECONNREFUSED);
        for (const char* address : {"127.0.0.2", "0.0.0.0", "::1", "::"})
            EXPECT_EQ(check(with, endpoint(address)), ECONNREFUSED) << address;
    }
}

TEST(Destinations, a_name_server_on_the_loopback_is_reached_with_egress_only) {
    const auto dns = endpoint("127.0.0.53", 53);
    const Settings open{.egress = true, .host_services = {}, .ports = {}, .user = {}};
    EXPECT_EQ(Destinations(open, {dns}).check(Transport::udp, dns, std::nullopt), 0);
    EXPECT_EQ(Destinations(open, {dns}).check(Transport::tcp, dns, std::nullopt), 0);
    EXPECT_EQ(Destinations(open, {dns}).check(Transport::udp, endpoint("127.0.0.53", 54), {}),
              ECONNREFUSED);
    EXPECT_EQ(Destinations({}, {dns}).check(Transport::udp, dns, std::nullopt), ECONNREFUSED);
}

TEST(Destinations, who_sent_to_a_forwarded_port_gets_its_answer) {
    Settings settings;
    settings.ports = spec::parse_port_mappings("udp:5353:53,tcp:8080:80").value();
    Destinations destinations(settings, {});
    const auto forwarded = endpoint("127.0.0.1", 5353);
    const auto client = endpoint("127.0.0.1", 40000);
    EXPECT_TRUE(destinations.is_forwarded(forwarded));
    EXPECT_FALSE(destinations.is_forwarded(endpoint("127.0.0.1", 8080))) << "TCP";
    EXPECT_EQ(destinations.check(Transport::udp, client, forwarded), ECONNREFUSED);
    destinations.note_sender(forwarded, client);
    EXPECT_EQ(destinations.check(Transport::udp, client, forwarded), 0);
    EXPECT_EQ(destinations.check(Transport::tcp, client, forwarded), ECONNREFUSED);
    EXPECT_EQ(destinations.check(Transport::udp, endpoint("127.0.0.1", 40001), forwarded),
              ECONNREFUSED);
    EXPECT_EQ(destinations.check(Transport::udp, client, endpoint("0.0.0.0", 5354)), ECONNREFUSED)
        << "by another socket";
    EXPECT_EQ(destinations.check(Transport::udp, client, std::nullopt), ECONNREFUSED);
}

TEST(Destinations, forget_the_sender_that_is_longest_gone) {
    Settings settings;
    settings.ports = spec::parse_port_mappings("udp:5353:53").value();
    Destinations destinations(settings, {});
    const auto forwarded = endpoint("127.0.0.1", 5353);
    const auto client = [](unsigned i) {
        return endpoint("127.0.0.1", static_cast<std::uint16_t>(40000 + i));
    };
    for (unsigned i = 0; i <= 256; ++i)
        destinations.note_sender(forwarded, client(i));
    EXPECT_EQ(destinations.check(Transport::udp, client(0), forwarded), ECONNREFUSED);
    EXPECT_EQ(destinations.check(Transport::udp, client(1), forwarded), 0);
    EXPECT_EQ(destinations.check(Transport::udp, client(256), forwarded), 0);
}

TEST(Nameservers, are_read_as_the_resolver_does) {
    EXPECT_THAT(
        nameservers_of("# nameserver 10.0.0.9\n"
                       "nameserver 127.0.0.53\n"
                       "nameserver\t::1 \n"
                       "nameserverx 10.0.0.1\n"
                       "nameserver\n"
                       "nameserver fe80::1%eth0\n"
                       "search example\n"
                       "nameserver 10.0.0.2"),
        ElementsAre(endpoint("127.0.0.53", 53), endpoint("::1", 53), endpoint("10.0.0.2", 53)));
}

TEST(Nameservers, are_not_endless) {
    std::string text;
    for (int i = 0; i < 100; ++i)
        text += "nameserver 10.0.0.1\n";
    EXPECT_THAT(nameservers_of(text), SizeIs(16));
}

} // namespace
} // namespace host_runner::usernet::program

// SPDX-License-Identifier: Apache-2.0
#include "host_runner/host/ports.hpp"

#include <fstream>
#include <stdexcept>
#include <vector>

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <gmock/gmock.h>

#include "fakes/host_fixture.hpp"
#include "host_runner/base/unique_fd.hpp"

namespace host_runner::host {
namespace {

using spec::PortMapping;
using spec::Protocol;
using testing::Contains;
using testing::HasSubstr;
using testing::Not;
using tests::HostFixture;

/// A port of 127.0.0.1 that this test holds.
class TakenPort {
public:
    explicit TakenPort(Protocol protocol, in_addr_t address = INADDR_LOOPBACK)
        : socket_(::socket(AF_INET, protocol == Protocol::tcp ? SOCK_STREAM : SOCK_DGRAM, 0)) {
        sockaddr_in name{};
        name.sin_family = AF_INET;
        name.sin_addr.s_addr = htonl(address);
        socklen_t length = sizeof name;
        if (::bind(socket_.get(), reinterpret_cast<const sockaddr*>(&name), sizeof name) != 0 ||
            (protocol == Protocol::tcp && ::listen(socket_.get(), 1) != 0) ||
            ::getsockname(socket_.get(), reinterpret_cast<sockaddr*>(&name), &length) != 0)
            throw std::runtime_error("cannot take a port");
        mapping_ = {protocol, "127.0.0.1", ntohs(name.sin_port), 80};
    }
    [[nodiscard]] const PortMapping& mapping() const noexcept {
        return mapping_;
    }
    void release() {
        socket_.reset();
    }

private:
    UniqueFd socket_;
    PortMapping mapping_;
};

std::string own_name() {
    std::string name;
    std::getline(std::ifstream("/proc/self/comm"), name);
    return name;
}

class CheckPort : public testing::TestWithParam<Protocol> {};

TEST_P(CheckPort, names_the_owner_of_a_taken_port) {
    const TakenPort taken(GetParam());
    const auto result = check_port_free(taken.mapping());
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().code, ErrorCode::already_exists);
    EXPECT_THAT(result.error().message,
                HasSubstr("127.0.0.1:" + std::to_string(taken.mapping().host_port)));
    EXPECT_THAT(result.error().message,
                HasSubstr(own_name() + " (pid " + std::to_string(::getpid()) + ")"));
}

TEST_P(CheckPort, takes_nothing) {
    TakenPort taken(GetParam());
    const auto mapping = taken.mapping();
    taken.release();
    EXPECT_TRUE(check_port_free(mapping));
    EXPECT_TRUE(check_port_free(mapping));
}

TEST_P(CheckPort, of_all_addresses_conflicts_with_one) {
    const TakenPort taken(GetParam());
    auto mapping = taken.mapping();
    mapping.host_address = "0.0.0.0";
    const auto result = check_port_free(mapping);
    ASSERT_FALSE(result);
    EXPECT_THAT(result.error().message, HasSubstr(std::to_string(::getpid())));
}

TEST_P(CheckPort, of_one_address_conflicts_with_all) {
    const TakenPort taken(GetParam(), INADDR_ANY);
    const auto result = check_port_free(taken.mapping());
    ASSERT_FALSE(result);
    EXPECT_THAT(result.error().message, HasSubstr(std::to_string(::getpid())));
}

TEST_P(CheckPort, of_another_loopback_address_is_free) {
    const TakenPort taken(GetParam());
    auto mapping = taken.mapping();
    mapping.host_address = "127.0.0.2";
    EXPECT_TRUE(check_port_free(mapping));
}

TEST_P(CheckPort, settles_zero_to_a_free_port) {
    const auto mapping = settle_host_port({GetParam(), "127.0.0.1", 0, 80});
    ASSERT_TRUE(mapping) << mapping.error().describe();
    EXPECT_NE(mapping->host_port, 0);
    EXPECT_EQ(mapping->guest_port, 80);
    EXPECT_TRUE(check_port_free(*mapping));
}

INSTANTIATE_TEST_SUITE_P(Each, CheckPort, testing::Values(Protocol::tcp, Protocol::udp),
                         [](const auto& test) { return std::string(to_string(test.param)); });

TEST(SettleHostPort, does_not_pick_what_is_claimed) {
    std::vector<std::uint16_t> refused;
    const auto mapping =
        settle_host_port({Protocol::tcp, "127.0.0.1", 0, 80}, [&](const PortMapping& candidate) {
            if (refused.size() >= 3)
                return false;
            refused.push_back(candidate.host_port);
            return true;
        });
    ASSERT_TRUE(mapping) << mapping.error().describe();
    EXPECT_EQ(refused.size(), 3U);
    EXPECT_THAT(refused, Not(Contains(mapping->host_port)));
}

TEST(SettleHostPort, gives_up_when_every_port_is_claimed) {
    const auto mapping = settle_host_port({Protocol::tcp, "127.0.0.1", 0, 80},
                                          [](const PortMapping&) { return true; });
    ASSERT_FALSE(mapping);
    EXPECT_EQ(mapping.error().code, ErrorCode::resource_exhausted);
}

TEST(SettleHostPort, checks_a_given_port) {
    const TakenPort taken(Protocol::tcp);
    EXPECT_EQ(settle_host_port(taken.mapping()).error().code, ErrorCode::already_exists);
}

TEST(SettleHostPort, says_when_the_address_is_not_ours) {
    const auto mapping = settle_host_port({Protocol::tcp, "192.0.2.1", 0, 80}); // RFC 5737
    ASSERT_FALSE(mapping);
    EXPECT_EQ(mapping.error().code, ErrorCode::invalid_argument);
    EXPECT_THAT(mapping.error().message, HasSubstr("192.0.2.1"));
}

constexpr const char* table_head = "  sl  local_address rem_address   st tx_queue rx_queue tr "
                                   "tm->when retrnsmt   uid  timeout inode\n";

std::string row(const std::string& address, const std::string& state, const std::string& inode) {
    return "   0: " + address + " 00000000:0000 " + state +
           " 00000000:00000000 00:00000000 00000000     0        0 " + inode + " 1 0 100 0 0\n";
}

class FindPortOwner : public testing::Test {
protected:
    FindPortOwner() {
        host.link("/proc/100/fd/3", "socket:[1111]").write("/proc/100/comm", "nginx\n");
        host.link("/proc/200/fd/7", "socket:[2222]").write("/proc/200/comm", "curl\n");
        host.write("/proc/self/comm", "x\n").write("/proc/cpuinfo", "");
    }
    [[nodiscard]] std::string find(const std::string& address = "127.0.0.1",
                                   Protocol protocol = Protocol::tcp) const {
        const auto owner = find_port_owner({protocol, address, 8080, 80}, host.root());
        return owner ? owner->program + " " + std::to_string(owner->pid) : "nobody";
    }
    HostFixture host;
};

TEST_F(FindPortOwner, reads_the_table_of_ipv4) {
    host.write("/proc/net/tcp", table_head + row("0100007F:1F90", "0A", "1111"));
    EXPECT_EQ(find(), "nginx 100");
    EXPECT_EQ(find("0.0.0.0"), "nginx 100");
    EXPECT_EQ(find("127.0.0.2"), "nobody");
    EXPECT_EQ(find("127.0.0.1", Protocol::udp), "nobody");
}

TEST_F(FindPortOwner, prefers_the_listener_to_a_connection_from_the_same_port) {
    host.write("/proc/net/tcp", table_head + row("0100007F:1F90", "01", "2222") +
                                    row("0100007F:1F90", "0A", "1111"));
    EXPECT_EQ(find(), "nginx 100");
}

TEST_F(FindPortOwner, finds_a_listener_on_all_addresses_of_ipv6) {
    host.write("/proc/net/tcp6",
               table_head + row("00000000000000000000000000000000:1F90", "0A", "1111"));
    EXPECT_EQ(find(), "nginx 100");
}

TEST_F(FindPortOwner, finds_an_ipv4_address_in_ipv6_form) {
    host.write("/proc/net/udp6",
               table_head + row("0000000000000000FFFF00000100007F:1F90", "07", "2222"));
    EXPECT_EQ(find("127.0.0.1", Protocol::udp), "curl 200");
    EXPECT_EQ(find("127.0.0.2", Protocol::udp), "nobody");
}

TEST_F(FindPortOwner, passes_over_other_ports_and_closed_sockets) {
    host.write("/proc/net/tcp",
               table_head + row("0100007F:1F91", "0A", "1111") + row("0100007F:1F90", "06", "0"));
    EXPECT_EQ(find(), "nobody");
}

TEST_F(FindPortOwner, gives_nobody_for_a_process_that_cannot_be_seen) {
    host.write("/proc/net/tcp", table_head + row("0100007F:1F90", "0A", "3333"));
    EXPECT_EQ(find(), "nobody");
}

TEST_F(FindPortOwner, passes_over_broken_rows) {
    host.write("/proc/net/tcp", "x\n\n0: 0100007F 0 0A 0 0 0 0 0 1111\n" +
                                    row("0100007F:xyz", "0A", "2222") +
                                    row("0100007F:1F90", "0A", "1111"));
    EXPECT_EQ(find(), "nginx 100");
}

} // namespace
} // namespace host_runner::host

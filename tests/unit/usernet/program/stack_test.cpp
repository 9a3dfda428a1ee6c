// SPDX-License-Identifier: Apache-2.0
#include "host_runner/usernet/program/stack.hpp"

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include "host_runner/base/unique_fd.hpp"
#include "host_runner/usernet/program/destinations.hpp"
#include "host_runner/usernet/program/socket_guard.hpp"

namespace host_runner::usernet::program {
namespace {

constexpr std::string_view guest_mac("\x52\x54\x00\x12\x34\x56", 6);
constexpr std::string_view host_mac("\x52\x55\x0a\x00\x02\x02", 6);
constexpr std::string_view broadcast_mac("\xff\xff\xff\xff\xff\xff", 6);
constexpr auto guest_address = "10.0.2.10";

std::string word16(unsigned value) {
    return {static_cast<char>(value >> 8U), static_cast<char>(value)};
}

std::string bytes_of(const char* address) {
    in_addr binary{};
    EXPECT_EQ(::inet_pton(AF_INET, address, &binary), 1);
    return {reinterpret_cast<const char*>(&binary), sizeof binary};
}

/// RFC 1071
unsigned checksum(std::string bytes) {
    if (bytes.size() % 2 != 0)
        bytes += '\0';
    unsigned sum = 0;
    for (std::size_t i = 0; i < bytes.size(); i += 2)
        sum += static_cast<unsigned>(static_cast<std::uint8_t>(bytes[i])) << 8U |
               static_cast<std::uint8_t>(bytes[i + 1]);
    while (sum > 0xffff)
        sum = (sum & 0xffffU) + (sum >> 16U);
    return ~sum & 0xffffU;
}

std::string ip_frame(const char* to, int protocol, const std::string& payload,
                     unsigned fragment = 0) {
    std::string header = std::string("\x45\0", 2) +
                         word16(20 + static_cast<unsigned>(payload.size())) + word16(7) +
                         word16(fragment) + '\x40' + static_cast<char>(protocol) + word16(0) +
                         bytes_of(guest_address) + bytes_of(to);
    header.replace(10, 2, word16(checksum(header)));
    return std::string(host_mac) + std::string(guest_mac) + std::string("\x08\0", 2) + header +
           payload;
}

std::string with_checksum(const char* to, int protocol, std::string segment, std::size_t at) {
    const auto pseudo = bytes_of(guest_address) + bytes_of(to) + '\0' +
                        static_cast<char>(protocol) + word16(static_cast<unsigned>(segment.size()));
    return segment.replace(at, 2, word16(checksum(pseudo + segment)));
}

/// A listening or bound socket on the host.
class HostSocket {
public:
    explicit HostSocket(int type, const char* address = "127.0.0.1")
        : fd_(::socket(AF_INET, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)) {
        sockaddr_in name{};
        name.sin_family = AF_INET;
        EXPECT_EQ(::inet_pton(AF_INET, address, &name.sin_addr), 1);
        socklen_t length = sizeof name;
        EXPECT_EQ(::bind(fd_.get(), reinterpret_cast<sockaddr*>(&name), sizeof name), 0);
        if (type == SOCK_STREAM) {
            EXPECT_EQ(::listen(fd_.get(), 8), 0);
        }
        EXPECT_EQ(::getsockname(fd_.get(), reinterpret_cast<sockaddr*>(&name), &length), 0);
        port_ = ntohs(name.sin_port);
    }
    [[nodiscard]] std::uint16_t port() const {
        return port_;
    }
    [[nodiscard]] int fd() const {
        return fd_.get();
    }
    /// Whether somebody connected, or sent a datagram, which is taken out.
    [[nodiscard]] bool was_reached() const {
        if (const UniqueFd connection(::accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC));
            connection)
            return true;
        char byte = 0;
        return ::recv(fd_.get(), &byte, 1, 0) >= 0;
    }

private:
    UniqueFd fd_;
    std::uint16_t port_ = 0;
};

/// A guest that writes its own packets.
class Guest {
public:
    explicit Guest(const Settings& settings) : destinations_(settings, {}) {
        EXPECT_TRUE(guard_sockets(destinations_));
        auto stack = Stack::create(settings, queue_);
        EXPECT_TRUE(stack) << stack.error().describe();
        stack_ = std::move(stack).value();
        // So that answers find it.
        stack_->input(std::string(broadcast_mac) + std::string(guest_mac) +
                      std::string("\x08\x06\0\1\x08\0\6\4\0\1", 10) + std::string(guest_mac) +
                      bytes_of(guest_address) + std::string(6, '\0') + bytes_of(guest_address));
    }
    Guest(const Guest&) = delete;
    Guest& operator=(const Guest&) = delete;
    ~Guest() {
        stack_.reset();
        release_sockets();
    }

    /// Asks for a connection. @return the flags of the answer; nullopt: none came, or no TCP
    std::optional<unsigned> connect(const char* to, std::uint16_t port, unsigned fragment = 0) {
        const auto source = next_port_++;
        auto segment = word16(source) + word16(port) + word16(0) + word16(1000) + word16(0) +
                       word16(0) + std::string("\x50\x02", 2) + word16(65535) + word16(0) +
                       word16(0);
        segment = with_checksum(to, IPPROTO_TCP, segment, 16);
        return flags_of_answer(ip_frame(to, IPPROTO_TCP, segment, fragment));
    }

    void send_datagram(const char* to, std::uint16_t port, std::uint16_t from = 4000) {
        auto datagram = word16(from) + word16(port) + word16(9) + word16(0) + "x";
        stack_->input(ip_frame(to, IPPROTO_UDP, with_checksum(to, IPPROTO_UDP, datagram, 6)));
        static_cast<void>(answer(IPPROTO_UDP));
    }

    /// The next packet of this protocol for the guest, Ethernet header and all.
    std::optional<std::string> answer(int protocol) {
        using namespace std::chrono_literals;
        const auto deadline = std::chrono::steady_clock::now() + 300ms;
        while (std::chrono::steady_clock::now() < deadline) {
            std::optional<std::string> found;
            FrameReader reader;
            EXPECT_TRUE(reader.feed(queue_.front(), [&](std::string_view frame) {
                if (!found && frame.size() > 34 && frame[12] == 8 && frame[13] == 0 &&
                    frame[23] == static_cast<char>(protocol))
                    found = std::string(frame);
            }));
            queue_.pop(queue_.front().size());
            if (found)
                return found;
            std::vector<pollfd> descriptors;
            static_cast<void>(stack_->prepare(descriptors));
            const int ready = ::poll(descriptors.data(), descriptors.size(), 10);
            stack_->handle(descriptors, ready < 0);
        }
        return std::nullopt;
    }

private:
    std::optional<unsigned> flags_of_answer(const std::string& frame) {
        constexpr std::size_t flags_offset = 14 + 20 + 13;
        stack_->input(frame);
        const auto packet = answer(IPPROTO_TCP);
        if (!packet || packet->size() <= flags_offset)
            return std::nullopt;
        return static_cast<std::uint8_t>((*packet)[flags_offset]);
    }

    Destinations destinations_;
    FrameQueue queue_;
    std::unique_ptr<Stack> stack_;
    std::uint16_t next_port_ = 40001;
};

constexpr unsigned syn_ack = 0x12;
constexpr unsigned reset_ack = 0x14;

Settings open_network() {
    Settings settings;
    settings.egress = true;
    return settings;
}

/// However the guest names the host: 10.0.2.2 as it should, or what its own kernel would not send.
constexpr auto names_of_the_host = {"10.0.2.2", "127.0.0.1", "0.0.0.0", "255.255.255.255",
                                    "127.9.9.9"};

TEST(Stack, shows_an_open_guest_nothing_of_the_hosts_loopback) {
    const HostSocket listener(SOCK_STREAM);
    Guest guest(open_network());
    for (const char* address : names_of_the_host) {
        EXPECT_EQ(guest.connect(address, listener.port()), reset_ack) << address;
        EXPECT_FALSE(listener.was_reached()) << address;
    }
}

TEST(Stack, shows_an_open_guest_no_socket_for_datagrams_either) {
    const HostSocket socket(SOCK_DGRAM);
    Guest guest(open_network());
    for (const char* address : names_of_the_host) {
        guest.send_datagram(address, socket.port());
        EXPECT_FALSE(socket.was_reached()) << address;
    }
}

TEST(Stack, shows_a_closed_guest_nothing) {
    const HostSocket listener(SOCK_STREAM);
    Guest guest({});
    for (const char* address : names_of_the_host) {
        static_cast<void>(guest.connect(address, listener.port()));
        EXPECT_FALSE(listener.was_reached()) << address;
    }
    EXPECT_EQ(guest.connect("192.0.2.7", 80), std::nullopt) << "not a connection to the outside";
}

TEST(Stack, connects_the_service_that_was_named_and_no_other) {
    const HostSocket named(SOCK_STREAM);
    const HostSocket other(SOCK_STREAM);
    for (const bool egress : {false, true}) {
        Settings settings;
        settings.egress = egress;
        settings.host_services = {named.port()};
        Guest guest(settings);
        for (int i = 0; i < 3; ++i) {
            EXPECT_EQ(guest.connect("10.0.2.2", named.port()), syn_ack);
            EXPECT_TRUE(named.was_reached());
        }
        EXPECT_EQ(guest.connect("10.0.2.2", other.port()), reset_ack);
        EXPECT_FALSE(other.was_reached());
    }
}

TEST(Stack, fragments_change_nothing) {
    const HostSocket listener(SOCK_STREAM);
    Guest guest(open_network());
    constexpr unsigned more_fragments = 0x2000;
    static_cast<void>(guest.connect("127.0.0.1", listener.port(), more_fragments));
    static_cast<void>(guest.connect("127.0.0.1", listener.port(), 3));
    EXPECT_FALSE(listener.was_reached());
}

TEST(Stack, forwards_datagrams_both_ways) {
    const std::uint16_t host_port = HostSocket(SOCK_DGRAM).port(); // free again
    Settings settings;
    settings.ports = {{spec::Protocol::udp, "127.0.0.1", host_port, 53}};
    Guest guest(settings);
    const HostSocket client(SOCK_DGRAM);
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(host_port);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    // Not by sendto(), which is guarded in this process.
    iovec bytes{const_cast<char*>("question"), 8};
    msghdr message{};
    message.msg_name = &to;
    message.msg_namelen = sizeof to;
    message.msg_iov = &bytes;
    message.msg_iovlen = 1;
    ASSERT_EQ(::sendmsg(client.fd(), &message, 0), 8);
    const auto question = guest.answer(IPPROTO_UDP);
    ASSERT_TRUE(question);
    EXPECT_NE(question->find("question"), std::string::npos);

    const HostSocket bystander(SOCK_DGRAM);
    guest.send_datagram("10.0.2.2", bystander.port(), 53);
    EXPECT_FALSE(bystander.was_reached());
    guest.send_datagram("10.0.2.2", client.port(), 53);
    EXPECT_TRUE(client.was_reached());
}

TEST(Stack, names_the_port_that_is_taken) {
    const HostSocket listener(SOCK_STREAM);
    Settings settings;
    settings.ports = {{spec::Protocol::tcp, "127.0.0.1", listener.port(), 80}};
    Destinations destinations(settings, {});
    ASSERT_TRUE(guard_sockets(destinations));
    FrameQueue queue;
    const auto stack = Stack::create(settings, queue);
    ASSERT_FALSE(stack);
    EXPECT_EQ(stack.error().code, ErrorCode::already_exists);
    EXPECT_EQ(stack.error().message, spec::format_port_mapping(settings.ports.front()));
    EXPECT_EQ(stack.error().sys_errno, EADDRINUSE);
    release_sockets();
}

TEST(SocketGuard, lets_nothing_through_before_it_is_told_what) {
    release_sockets();
    const HostSocket listener(SOCK_STREAM);
    const UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(listener.port());
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::connect(fd.get(), reinterpret_cast<sockaddr*>(&to), sizeof to), -1);
    EXPECT_EQ(errno, EPERM);
}

} // namespace
} // namespace host_runner::usernet::program

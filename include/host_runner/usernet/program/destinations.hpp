// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Which addresses the user network may send to on its guest's behalf. Asked at each connect() and
/// sendto() that libslirp makes, with the very address the kernel would get: whatever a guest put
/// into its packets (127.0.0.1 itself, 0.0.0.0, fragments, options, IPv6) has become that address.
///
///     Destinations allowed({.egress = false, .host_services = {5432}, ...});
///     allowed.check(Transport::tcp, to)      // 0, or the errno for libslirp
///
/// One thread.

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include <sys/socket.h>

#include "host_runner/usernet/settings.hpp"

namespace host_runner::usernet::program {

/// An address and port; IPv4 as IPv4-mapped IPv6 (RFC 4291, 2.5.5.2), which the kernel takes for
/// the same.
struct Endpoint {
    std::array<std::uint8_t, 16> address{};
    std::uint16_t port = 0;
    bool operator==(const Endpoint&) const = default;
    /// An address that never leaves this host: 127.0.0.0/8, ::1, and those that the kernel takes
    /// for it, 0.0.0.0/8 and ::.
    [[nodiscard]] bool is_loopback() const noexcept;
};
/// nullopt: neither IPv4 nor IPv6, or cut short.
[[nodiscard]] std::optional<Endpoint> endpoint_of(const sockaddr* address,
                                                  socklen_t length) noexcept;
[[nodiscard]] Endpoint ipv4_endpoint(std::uint32_t address, std::uint16_t port) noexcept;

/// The addresses of `nameserver` lines (resolv.conf(5)), port 53; at most 16.
[[nodiscard]] std::vector<Endpoint> nameservers_of(std::string_view resolv_conf);

enum class Transport { tcp, udp };

class Destinations {
public:
    Destinations(const Settings& settings, std::vector<Endpoint> nameservers);

    /// @param local of the sending socket, where that is known: an answer of the guest leaves by
    ///              the forwarded port that the question came in at
    /// @return 0, else the errno that says why not
    [[nodiscard]] int check(Transport transport, const Endpoint& to,
                            const std::optional<Endpoint>& local) const noexcept;

    /// Whether a datagram at this socket came in at a forwarded port.
    [[nodiscard]] bool is_forwarded(const Endpoint& local) const noexcept;
    /// A datagram came in at a forwarded port: its sender may be answered. The last 256 are known.
    void note_sender(const Endpoint& local, const Endpoint& from) noexcept;
    [[nodiscard]] bool forwards_datagrams() const noexcept {
        return !forwards_.empty();
    }

private:
    struct Conversation {
        std::uint16_t local_port = 0;
        Endpoint peer;
        bool operator==(const Conversation&) const = default;
    };

    bool egress_;
    std::vector<std::uint16_t> host_services_;
    std::vector<Endpoint> nameservers_;
    std::vector<std::uint16_t> forwards_; ///< UDP, ports of the host.
    std::array<Conversation, 256> conversations_{};
    std::size_t next_conversation_ = 0;
};

} // namespace host_runner::usernet::program

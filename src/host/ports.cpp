// SPDX-License-Identifier: Apache-2.0
#include "host_runner/host/ports.hpp"

#include <algorithm>
#include <cerrno>
#include <functional>
#include <set>
#include <string_view>
#include <vector>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <fmt/format.h>

#include "host_runner/base/files.hpp"
#include "host_runner/base/unique_fd.hpp"
#include "parse.hpp"

namespace host_runner::host {

namespace {

/// Large enough for tens of thousands of sockets.
constexpr std::size_t max_socket_table_bytes = 64U << 20;

Result<in_addr> parse_address(const spec::PortMapping& mapping) {
    in_addr address{};
    if (::inet_pton(AF_INET, mapping.host_address.c_str(), &address) != 1)
        return fail(ErrorCode::invalid_argument,
                    fmt::format("Host address \"{}\" of port {} is not an IPv4 address",
                                mapping.host_address, spec::format_port_mapping(mapping)),
                    "for example tcp:127.0.0.1:8080:80");
    return address;
}

std::vector<std::string_view> split_columns(std::string_view line) {
    std::vector<std::string_view> columns;
    while (!line.empty()) {
        const auto start = std::min(line.find_first_not_of(' '), line.size());
        line.remove_prefix(start);
        const auto end = std::min(line.find(' '), line.size());
        if (end > 0)
            columns.push_back(line.substr(0, end));
        line.remove_prefix(end);
    }
    return columns;
}

/// One row of /proc/net/{tcp,tcp6,udp,udp6} (Linux Documentation/networking/proc_net_tcp.rst).
struct SocketRow {
    std::string_view address; ///< 8 or 32 hex digits: 32-bit words in the host's byte order.
    std::uint16_t port = 0;
    bool listens = false; ///< TCP only.
    std::string_view inode;
};

std::optional<SocketRow> parse_row(std::string_view line) {
    constexpr std::size_t inode_column = 9;
    const auto columns = split_columns(line);
    if (columns.size() <= inode_column)
        return std::nullopt;
    const auto local = columns[1];
    const auto colon = local.find(':');
    if (colon == std::string_view::npos)
        return std::nullopt;
    const auto port = parse_number<std::uint16_t>(local.substr(colon + 1), 16);
    if (!port)
        return std::nullopt;
    return SocketRow{local.substr(0, colon), *port, columns[3] == "0A", columns[inode_column]};
}

/// Whether a socket at `row` keeps others from binding `wanted`.
bool stands_in_way(std::string_view row, in_addr wanted) {
    constexpr std::string_view mapped_ipv4 = "0000000000000000FFFF0000"; // ::ffff:a.b.c.d
    if (row == "00000000000000000000000000000000")
        return true; // [::] usually takes IPv4 as well
    if (row.size() == 32 && row.starts_with(mapped_ipv4))
        row.remove_prefix(mapped_ipv4.size());
    if (row.size() != 8)
        return false;
    const auto address = parse_number<std::uint32_t>(row, 16);
    return address && (*address == 0 || wanted.s_addr == 0 || *address == wanted.s_addr);
}

/// Inodes of the sockets that hold the port, the likeliest first: listeners, IPv4 before IPv6.
std::vector<std::string> find_inodes(const spec::PortMapping& mapping, in_addr address,
                                     const HostRoot& root) {
    std::vector<std::string> listeners;
    std::vector<std::string> others;
    for (const auto* const suffix : {"", "6"}) {
        const auto table = read_file(
            root.path(fmt::format("/proc/net/{}{}", spec::to_string(mapping.protocol), suffix)),
            max_socket_table_bytes);
        if (!table)
            continue; // e.g. a kernel without IPv6
        std::string_view text = *table;
        while (!text.empty()) {
            const auto end = std::min(text.find('\n'), text.size());
            const auto row = parse_row(text.substr(0, end));
            text.remove_prefix(std::min(end + 1, text.size()));
            if (row && row->port == mapping.host_port && row->inode != "0" &&
                stands_in_way(row->address, address))
                (row->listens ? listeners : others).emplace_back(row->inode);
        }
    }
    listeners.insert(listeners.end(), others.begin(), others.end());
    return listeners;
}

std::string socket_link(const std::string& inode) {
    return fmt::format("socket:[{}]", inode);
}

std::string describe_host_side(const spec::PortMapping& mapping) {
    return fmt::format("{} {}:{}", spec::to_string(mapping.protocol), mapping.host_address,
                       mapping.host_port);
}

/// Binds as QEMU's user network does: TCP with SO_REUSEADDR (a port whose old connections are in
/// TIME_WAIT is free) and listening; UDP without, since that would share a taken port in silence.
struct BindResult {
    UniqueFd socket;
    int error = 0;
};

BindResult try_bind(const spec::PortMapping& mapping, in_addr address) {
    const bool is_tcp = mapping.protocol == spec::Protocol::tcp;
    BindResult result;
    result.socket.reset(::socket(AF_INET, (is_tcp ? SOCK_STREAM : SOCK_DGRAM) | SOCK_CLOEXEC, 0));
    if (!result.socket) {
        result.error = errno;
        return result;
    }
    const int on = 1;
    sockaddr_in name{};
    name.sin_family = AF_INET;
    name.sin_port = htons(mapping.host_port);
    name.sin_addr = address;
    if ((is_tcp &&
         ::setsockopt(result.socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0) ||
        ::bind(result.socket.get(), reinterpret_cast<const sockaddr*>(&name), sizeof name) != 0 ||
        (is_tcp && ::listen(result.socket.get(), 1) != 0))
        result.error = errno;
    return result;
}

tl::unexpected<Error> bind_error(const spec::PortMapping& mapping, int error,
                                 const HostRoot& root) {
    const auto port = describe_host_side(mapping);
    if (error == EADDRINUSE) {
        const auto owner = find_port_owner(mapping, root);
        return fail(ErrorCode::already_exists,
                    owner ? fmt::format("Host port {} is taken by {} (pid {})", port,
                                        owner->program, owner->pid)
                          : fmt::format("Host port {} is taken by a process that this user cannot "
                                        "see",
                                        port),
                    "choose another host port, or 0 for a free one");
    }
    if (error == EACCES)
        return fail(ErrorCode::permission_denied,
                    fmt::format("Host port {} may not be opened by this user", port),
                    "ports below 1024 need root or a lower net.ipv4.ip_unprivileged_port_start; "
                    "choose a higher one");
    if (error == EADDRNOTAVAIL)
        return fail(ErrorCode::invalid_argument,
                    fmt::format("Host port {} cannot be opened: {} is not an address of this host",
                                port, mapping.host_address),
                    "use 127.0.0.1, 0.0.0.0 for all addresses, or one that `ip address` shows");
    return fail_errno(fmt::format("Cannot open host port {}", port), error);
}

Result<std::uint16_t> bound_port(int socket) {
    sockaddr_in name{};
    socklen_t length = sizeof name;
    if (::getsockname(socket, reinterpret_cast<sockaddr*>(&name), &length) != 0)
        return fail_errno("Cannot ask for the port of a socket", errno);
    return ntohs(name.sin_port);
}

Result<spec::PortMapping> pick_free_port(const spec::PortMapping& mapping, in_addr address,
                                         const PortTaken& taken, const HostRoot& root) {
    constexpr std::size_t max_attempts = 256;
    std::vector<UniqueFd> refused; // kept open, so that the kernel offers others
    while (refused.size() < max_attempts) {
        auto bound = try_bind(mapping, address);
        if (bound.error == EADDRINUSE)
            break; // the kernel has none left
        if (bound.error != 0)
            return bind_error(mapping, bound.error, root);
        auto candidate = mapping;
        HR_TRY(candidate.host_port, bound_port(bound.socket.get()));
        if (!taken || !taken(candidate))
            return candidate;
        refused.push_back(std::move(bound.socket));
    }
    return fail(ErrorCode::resource_exhausted,
                fmt::format("No free {} port on {}", spec::to_string(mapping.protocol),
                            mapping.host_address),
                "choose the host port yourself: net.ipv4.ip_local_port_range is used up");
}

} // namespace

std::optional<ProcessHolder> find_port_owner(const spec::PortMapping& mapping,
                                             const HostRoot& root) {
    const auto address = parse_address(mapping);
    if (!address)
        return std::nullopt;
    const auto inodes = find_inodes(mapping, *address, root);
    std::set<std::string, std::less<>> sockets;
    for (const auto& inode : inodes)
        sockets.insert(socket_link(inode));
    const auto holders = find_holders(sockets, root);
    for (const auto& inode : inodes)
        if (const auto holder = holders.find(socket_link(inode)); holder != holders.end())
            return holder->second;
    return std::nullopt;
}

Result<void> check_port_free(const spec::PortMapping& mapping, const HostRoot& root) {
    HR_TRY(const auto address, parse_address(mapping));
    const auto bound = try_bind(mapping, address);
    if (bound.error != 0)
        return bind_error(mapping, bound.error, root);
    return {};
}

Result<spec::PortMapping> settle_host_port(const spec::PortMapping& mapping, const PortTaken& taken,
                                           const HostRoot& root) {
    if (mapping.host_port == 0) {
        HR_TRY(const auto address, parse_address(mapping));
        return pick_free_port(mapping, address, taken, root);
    }
    HR_CHECK(check_port_free(mapping, root));
    return mapping;
}

} // namespace host_runner::host

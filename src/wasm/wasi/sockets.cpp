// SPDX-License-Identifier: Apache-2.0
#include "host_runner/wasm/wasi/sockets.hpp"

#include <algorithm>
#include <cerrno>
#include <set>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "stream_io.hpp"

namespace host_runner::wasm::wasi {

namespace {

constexpr std::size_t max_entries = 256;
constexpr int backlog = 100;

struct Address {
    sockaddr_storage storage{};
    socklen_t size = 0;

    [[nodiscard]] const sockaddr* get() const noexcept {
        return reinterpret_cast<const sockaddr*>(&storage);
    }
};

Result<Address> parse_address(const std::string& text, std::uint16_t port) {
    Address address;
    auto* const v4 = reinterpret_cast<sockaddr_in*>(&address.storage);
    if (::inet_pton(AF_INET, text.c_str(), &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(port);
        address.size = sizeof *v4;
        return address;
    }
    auto* const v6 = reinterpret_cast<sockaddr_in6*>(&address.storage);
    if (::inet_pton(AF_INET6, text.c_str(), &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(port);
        address.size = sizeof *v6;
        return address;
    }
    return fail(ErrorCode::invalid_argument, "\"" + text + "\" is not an IPv4 or IPv6 address",
                "Names are not resolved: give an address, for a peer beside its host name");
}

bool is_socket(const FileEntry& entry) {
    return entry.kind == FileKind::listen || entry.kind == FileKind::connect;
}

std::string name_of(const FileEntry& entry) {
    if (!entry.name.empty())
        return entry.name;
    switch (entry.kind) {
    case FileKind::null:
        return "null";
    case FileKind::standard_input:
        return "stdin";
    case FileKind::standard_output:
        return "stdout";
    case FileKind::standard_error:
        return "stderr";
    case FileKind::connect:
        return entry.host;
    case FileKind::listen:
        break;
    }
    return {};
}

std::string address_of(const FileEntry& entry) {
    if (!entry.address.empty())
        return entry.address;
    return entry.kind == FileKind::listen ? "::" : entry.host;
}

std::uint16_t port_of(const FileEntry& entry) {
    constexpr std::uint16_t https = 443;
    constexpr std::uint16_t http = 80;
    return entry.port.value_or(entry.protocol == Protocol::tls ? https : http);
}

/// For messages: "web (listen on [::]:443)".
std::string describe(const FileEntry& entry) {
    return "\"" + name_of(entry) + "\" (" +
           (entry.kind == FileKind::listen ? "listen on [" : "connect to [") + address_of(entry) +
           "]:" + std::to_string(port_of(entry)) + ")";
}

Result<void> check_socket(const FileEntry& entry, const FileListMeans& means) {
    HR_CHECK(parse_address(address_of(entry), port_of(entry)));
    if (entry.protocol == Protocol::tcp)
        return {};
    if (entry.kind == FileKind::listen ? !means.tls_server : !means.tls_client)
        return fail(ErrorCode::invalid_argument,
                    describe(entry) + " asks for TLS, for which there is " +
                        (entry.kind == FileKind::listen ? "no certificate" : "nobody to trust"));
    return {};
}

Result<void> check_list(std::span<const FileEntry> entries, const FileListMeans& means) {
    if (entries.size() > max_entries)
        return fail(ErrorCode::invalid_argument,
                    "The file list has " + std::to_string(entries.size()) +
                        " entries, over the limit of " + std::to_string(max_entries));
    std::set<std::string> names;
    std::set<FileKind> standard;
    for (const auto& entry : entries) {
        const auto name = name_of(entry);
        if (name.empty() || name.find(':') != std::string::npos ||
            name.find('\0') != std::string::npos)
            return fail(ErrorCode::invalid_argument,
                        "\"" + name + "\" cannot be the name of a file",
                        "Give each listen a name; names may not hold ':'");
        if (!names.insert(name).second)
            return fail(ErrorCode::invalid_argument, "Two files have the name \"" + name + "\"",
                        "Give them names of their own");
        if (is_socket(entry))
            HR_CHECK(check_socket(entry, means));
        else if (entry.kind != FileKind::null && !standard.insert(entry.kind).second)
            return fail(ErrorCode::invalid_argument,
                        "\"" + name + "\" is a standard stream that the list has already");
    }
    return {};
}

Result<UniqueFd> new_socket(const FileEntry& entry, const Address& address) {
    UniqueFd fd(::socket(address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!fd)
        return fail_errno("Cannot make a socket for " + describe(entry), errno);
    return fd;
}

std::uint16_t bound_port(int fd) {
    Address address;
    address.size = sizeof address.storage;
    if (::getsockname(fd, reinterpret_cast<sockaddr*>(&address.storage), &address.size) != 0)
        return 0;
    return ntohs(address.storage.ss_family == AF_INET
                     ? reinterpret_cast<const sockaddr_in*>(&address.storage)->sin_port
                     : reinterpret_cast<const sockaddr_in6*>(&address.storage)->sin6_port);
}

Result<Listener> open_listener(const FileEntry& entry, const FileListMeans& means) {
    HR_TRY(const auto address, parse_address(address_of(entry), port_of(entry)));
    HR_TRY(auto fd, new_socket(entry, address));
    const int on = 1;
    const int off = 0;
    // A restarted guest gets its port back at once; "::" takes IPv4 too, whatever the system says.
    static_cast<void>(::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on));
    if (address.storage.ss_family == AF_INET6)
        static_cast<void>(::setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off));
    if (entry.shared && ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) != 0)
        return fail_errno("Cannot share " + describe(entry), errno);
    if (::bind(fd.get(), address.get(), address.size) != 0 || ::listen(fd.get(), backlog) != 0) {
        const int saved = errno;
        if (saved == EADDRINUSE)
            return fail(ErrorCode::already_exists,
                        "Cannot open " + describe(entry) + ": the address is in use");
        return fail_errno("Cannot open " + describe(entry), saved);
    }
    return Listener{std::move(fd), entry.protocol == Protocol::tls ? means.tls_server : nullptr};
}

Result<void> wait_connecting(const FileEntry& entry, const CallDeadline& deadline, int fd,
                             short events, std::optional<TimePoint> limit) {
    const auto waited = wait_for(deadline, fd, events, limit);
    if (waited)
        return {};
    if (waited.error().trap)
        return fail(ErrorCode::timeout,
                    "Cannot open " + describe(entry) + ": " + waited.error().trap->message);
    return fail(ErrorCode::io_error, "Cannot open " + describe(entry) + ": poll failed");
}

tl::unexpected<Error> connecting_failed(const FileEntry& entry, int code) {
    auto failure = fail_errno("Cannot open " + describe(entry), code);
    failure.value().code = code == ETIMEDOUT ? ErrorCode::timeout : ErrorCode::unavailable;
    return failure;
}

Result<void> connect_tcp(const FileEntry& entry, const CallDeadline& deadline, int fd) {
    HR_TRY(const auto address, parse_address(address_of(entry), port_of(entry)));
    if (::connect(fd, address.get(), address.size) == 0)
        return {};
    if (errno != EINPROGRESS && errno != EINTR)
        return connecting_failed(entry, errno);
    HR_CHECK(wait_connecting(entry, deadline, fd, POLLOUT, {}));
    int code = 0;
    socklen_t size = sizeof code;
    if (::getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &size) != 0)
        code = errno;
    if (code != 0)
        return connecting_failed(entry, code);
    return {};
}

Result<void> shake_hands(const FileEntry& entry, const CallDeadline& deadline,
                         const Stream& stream) {
    for (;;) {
        const auto status = stream.tls->handshake().status;
        if (status == TlsStatus::done)
            return {};
        if (status == TlsStatus::timed_out)
            return fail(ErrorCode::timeout,
                        "Cannot open " + describe(entry) + ": the TLS handshake takes too long");
        if (status != TlsStatus::want_read && status != TlsStatus::want_write)
            return fail(ErrorCode::unavailable,
                        "Cannot open " + describe(entry) +
                            ": the TLS handshake failed: " + stream.tls->failure());
        const short events = status == TlsStatus::want_read ? POLLIN : POLLOUT;
        HR_CHECK(wait_connecting(entry, deadline, stream.fd.get(), events, stream.tls->limit()));
    }
}

Result<Stream> open_connection(const FileEntry& entry, const FileListMeans& means) {
    HR_TRY(const auto address, parse_address(address_of(entry), port_of(entry)));
    Stream stream;
    HR_TRY(stream.fd, new_socket(entry, address));
    HR_CHECK(connect_tcp(entry, means.deadline, stream.fd.get()));
    const int on = 1;
    static_cast<void>(::setsockopt(stream.fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on));
    if (entry.protocol == Protocol::tls) {
        HR_TRY(stream.tls, means.tls_client->start(stream.fd.get(), entry.host));
        HR_CHECK(shake_hands(entry, means.deadline, stream));
    }
    return stream;
}

Result<File> open_one(const FileEntry& entry, FileListMeans& means) {
    switch (entry.kind) {
    case FileKind::null:
        break;
    case FileKind::standard_input:
        return std::move(means.standard_input);
    case FileKind::standard_output:
        return std::move(means.standard_output);
    case FileKind::standard_error:
        return std::move(means.standard_error);
    case FileKind::listen: {
        HR_TRY(auto listener, open_listener(entry, means));
        return File{std::move(listener)};
    }
    case FileKind::connect: {
        HR_TRY(auto stream, open_connection(entry, means));
        return File{std::move(stream)};
    }
    }
    return File{NullFile{}};
}

} // namespace

Result<OpenedFileList> open_file_list(std::span<const FileEntry> entries, FileListMeans means) {
    HR_CHECK(check_list(entries, means));
    OpenedFileList opened;
    std::string names;
    for (const auto& entry : entries) {
        HR_TRY(auto file, open_one(entry, means));
        const auto* const listener = std::get_if<Listener>(&file);
        opened.ports.push_back(listener != nullptr ? bound_port(listener->fd.get())
                                                   : std::uint16_t{0});
        opened.files.push_back(std::move(file));
        names += (opened.files.size() == 1 ? "" : ":") + name_of(entry);
    }
    opened.environment.emplace_back("FD_COUNT", std::to_string(entries.size()));
    opened.environment.emplace_back("FD_NAMES", std::move(names));
    return opened;
}

} // namespace host_runner::wasm::wasi

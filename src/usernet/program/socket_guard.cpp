// SPDX-License-Identifier: Apache-2.0
#include "host_runner/usernet/program/socket_guard.hpp"

#include <cerrno>
#include <cstddef>
#include <optional>

#include <dlfcn.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace host_runner::usernet::program {

namespace {

Destinations* guard = nullptr; // NOLINT: what functions of C's names go by

std::optional<Endpoint> local_end(int fd) noexcept {
    sockaddr_storage name{};
    socklen_t length = sizeof name;
    if (::getsockname(fd, reinterpret_cast<sockaddr*>(&name), &length) != 0)
        return std::nullopt;
    return endpoint_of(reinterpret_cast<const sockaddr*>(&name), length);
}

/// 0, or the errno with which the call fails.
int refusal(Transport transport, int fd, const sockaddr* address, socklen_t length) noexcept {
    if (guard == nullptr)
        return EPERM;
    const auto to = endpoint_of(address, length);
    if (!to)
        return EAFNOSUPPORT;
    const bool may_answer = transport == Transport::udp && guard->forwards_datagrams();
    return guard->check(transport, *to, may_answer ? local_end(fd) : std::nullopt);
}

} // namespace

Result<void> guard_sockets(Destinations& destinations) {
    const auto is_ours = [](const char* name, void* ours) {
        return ::dlsym(RTLD_DEFAULT, name) == ours;
    };
    if (!is_ours("connect", reinterpret_cast<void*>(&::connect)) ||
        !is_ours("sendto", reinterpret_cast<void*>(&::sendto)) ||
        !is_ours("recvfrom", reinterpret_cast<void*>(&::recvfrom)))
        return fail(ErrorCode::internal,
                    "libslirp's connections would not be checked: the dynamic linker binds its "
                    "calls to other functions",
                    "start user_network without LD_PRELOAD");
    guard = &destinations;
    return {};
}

void release_sockets() noexcept {
    guard = nullptr;
}

} // namespace host_runner::usernet::program

// The C library's own are not called: they could be found under other names only.
extern "C" {

[[gnu::visibility("default")]] int connect(int fd, const sockaddr* address, socklen_t length) {
    using namespace host_runner::usernet::program;
    if (const int problem = refusal(Transport::tcp, fd, address, length); problem != 0) {
        errno = problem;
        return -1;
    }
    return static_cast<int>(::syscall(SYS_connect, fd, address, length));
}

[[gnu::visibility("default")]] ssize_t sendto(int fd, const void* data, std::size_t size, int flags,
                                              const sockaddr* address, socklen_t length) {
    using namespace host_runner::usernet::program;
    if (address != nullptr) // else on a connection that is there
        if (const int problem = refusal(Transport::udp, fd, address, length); problem != 0) {
            errno = problem;
            return -1;
        }
    return ::syscall(SYS_sendto, fd, data, size, flags, address, length);
}

[[gnu::visibility("default")]] ssize_t recvfrom(int fd, void* data, std::size_t size, int flags,
                                                sockaddr* address, socklen_t* length) {
    using namespace host_runner::usernet::program;
    const auto count = ::syscall(SYS_recvfrom, fd, data, size, flags, address, length);
    if (count >= 0 && address != nullptr && guard != nullptr && guard->forwards_datagrams()) {
        const auto from = endpoint_of(address, *length);
        const auto local = local_end(fd);
        if (from && local && guard->is_forwarded(*local))
            guard->note_sender(*local, *from);
    }
    return count;
}

} // extern "C"

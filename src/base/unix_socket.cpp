// SPDX-License-Identifier: Apache-2.0
#include "host_runner/base/unix_socket.hpp"

#include <cerrno>

#include <sys/socket.h>
#include <sys/stat.h>

#include <fmt/format.h>

#include "host_runner/base/files.hpp"

namespace host_runner {

Result<sockaddr_un> unix_address(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() > max_socket_path)
        return fail(
            ErrorCode::invalid_argument,
            fmt::format("The socket path {} has {} bytes, a unix socket takes at most {}", path,
                        path.size(), max_socket_path),
            "use a folder with a shorter path: HOST_RUNNER_HOME, or --state of guest_agent");
    path.copy(static_cast<char*>(address.sun_path), path.size());
    return address;
}

Result<UniqueFd> listen_unix(const std::string& path) {
    HR_TRY(const auto address, unix_address(path));
    UniqueFd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!listener)
        return fail_errno("Cannot make a socket", errno);
    HR_CHECK(remove_file(path));
    // The mode set before bind() is the one the file gets, whatever the umask.
    if (::fchmod(listener.get(), 0600) != 0 ||
        ::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
        ::listen(listener.get(), SOMAXCONN) != 0)
        return fail_errno(fmt::format("Cannot listen on {}", path), errno);
    return listener;
}

} // namespace host_runner

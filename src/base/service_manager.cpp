// SPDX-License-Identifier: Apache-2.0
#include "host_runner/base/service_manager.hpp"

#include <cstddef>
#include <cstdlib>
#include <cstring>

#include <sys/socket.h>
#include <sys/un.h>

#include "host_runner/base/unique_fd.hpp"

namespace host_runner {

// NOLINTBEGIN(concurrency-mt-unsafe): before other threads
ServiceManager ServiceManager::from_environment() {
    constexpr const char* variable = "NOTIFY_SOCKET";
    const char* value = std::getenv(variable);
    std::string socket = value != nullptr ? value : "";
    ::unsetenv(variable);
    return ServiceManager(std::move(socket));
}
// NOLINTEND(concurrency-mt-unsafe)

void ServiceManager::tell(std::string_view assignments) const noexcept {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (socket_.empty() || socket_.size() >= sizeof address.sun_path)
        return;
    std::memcpy(static_cast<char*>(address.sun_path), socket_.data(), socket_.size());
    if (address.sun_path[0] == '@')
        address.sun_path[0] = '\0';
    // An abstract name has no terminating zero.
    const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + socket_.size());
    const UniqueFd fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (fd)
        static_cast<void>(::sendto(fd.get(), assignments.data(), assignments.size(), MSG_NOSIGNAL,
                                   reinterpret_cast<const sockaddr*>(&address), size));
}

} // namespace host_runner

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include <sys/un.h>

#include "host_runner/base/error.hpp"
#include "host_runner/base/unique_fd.hpp"

namespace host_runner {

/// The longest path of a unix socket, in bytes: sun_path without its end (unix(7)).
inline constexpr std::size_t max_socket_path = sizeof(sockaddr_un::sun_path) - 1;

/// @errors invalid_argument: longer than max_socket_path
[[nodiscard]] Result<sockaddr_un> unix_address(const std::string& path);

/// Listens on `path` with mode 0600, in place of a file that is there. The socket does not block;
/// its file stays when it is closed. @errors as unix_address(); the errno of what failed
[[nodiscard]] Result<UniqueFd> listen_unix(const std::string& path);

} // namespace host_runner

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// What `user_network` gives up before it sees the first packet: its user, files, programs, and
/// every system call that sockets and memory do not need.

#include <optional>

#include <sys/types.h>

#include "host_runner/base/error.hpp"

namespace host_runner::usernet::program {

/// Becomes this user and group without others, and dies with the parent as before.
/// @errors permission_denied; wrong_state: the parent has ended meanwhile
[[nodiscard]] Result<void> become_user(uid_t user);

enum class Files {
    none,
    resolver, ///< Reading the folder of /etc/resolv.conf, to follow its changes.
};
/// @errors what the kernel says: one that has no seccomp filters
[[nodiscard]] Result<void> confine(Files files);

} // namespace host_runner::usernet::program

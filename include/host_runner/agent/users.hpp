// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Users of the image, read from /etc/passwd and /etc/group without NSS (a static program has
/// none).

#include <string>
#include <string_view>

#include "host_runner/base/error.hpp"
#include "host_runner/base/process.hpp"

namespace host_runner::agent {

/// Who a service is when the compose file names nobody.
inline constexpr uid_t default_service_uid = 1000;

/// The user of the children that compile WebAssembly: nobody else is it.
inline constexpr uid_t compiler_uid = 60001;
/// The first of the users of WebAssembly services; see worker_user().
inline constexpr uid_t first_worker_uid = 100'000;

struct UserAccount {
    ProcessSpec::User ids;
    std::string home; ///< "/" for ids without an entry.
};

/// "name", "uid", "name:group", "uid:gid"; empty is default_service_uid. A number without an entry
/// is its own group. Supplementary groups come from `group_text` when no group is given.
/// @errors not_found: no such name
/// Source: passwd(5), group(5); `user` of the Compose Specification
[[nodiscard]] Result<UserAccount> resolve_user(std::string_view passwd_text,
                                               std::string_view group_text, std::string_view user);

/// Who a WebAssembly service is when the compose file names nobody: a user of its own, the same in
/// each boot, so that its volumes stay its own. It comes from the service's name: two of 1000
/// services are the same user with a chance of one in two thousand.
[[nodiscard]] ProcessSpec::User worker_user(std::string_view service);

} // namespace host_runner::agent

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

} // namespace host_runner::agent

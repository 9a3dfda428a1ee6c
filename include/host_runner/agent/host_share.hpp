// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The files that the host hands over. The host may change them at any time, so each is copied
/// once, within its cap and without following links, and only the copy is used.

#include <cstddef>
#include <string>
#include <string_view>

#include "host_runner/base/error.hpp"
#include "host_runner/protocol/app_compose.hpp"

namespace host_runner::agent {

inline constexpr std::string_view share_label = "DSTACKSHR";
/// The caps of app-compose.json and .sys-config.json are protocol's.
/// Source: dstack v0.5.11 dstack-util, host-shared copy limits
inline constexpr std::size_t max_instance_info_bytes = 10UL * 1024;

/// Who this VM is over its boots: dstack's .instance_info. All in lower-case hex, 20 bytes each.
struct InstanceInfo {
    std::string instance_id_seed;
    std::string instance_id; ///< First 20 bytes of SHA-256(seed || app id).
    std::string app_id;
};
[[nodiscard]] std::string encode_instance_info(const InstanceInfo& info);

/// Takes the seed and app id of an earlier boot from `json` (empty: none), makes what is missing
/// (a random seed; the app id from the first 20 bytes of `compose_hash`, hex) and computes the
/// instance id.
/// @errors corrupt_data: no JSON object, or a member that is not 20 bytes in hex
[[nodiscard]] Result<InstanceInfo> make_instance_info(std::string_view json,
                                                      std::string_view compose_hash);

struct HostShare {
    protocol::AppCompose app;
    std::string compose_hash; ///< Hex SHA-256 of app-compose.json's bytes.
    InstanceInfo instance;
};

/// Copies the files from the mounted share to `destination` (made 0755): app-compose.json,
/// .sys-config.json, .instance_info, and files/<sha256>, whose sizes and hashes are checked.
/// @errors not_found: a required file; corrupt_data: over its cap, no regular file, other size or
///         hash than app-compose.json says; invalid_argument: as decode_app_compose()
[[nodiscard]] Result<HostShare> copy_host_share(const std::string& share,
                                                const std::string& destination);

} // namespace host_runner::agent

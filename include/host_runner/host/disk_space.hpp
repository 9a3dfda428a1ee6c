// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "host_runner/base/error.hpp"

namespace host_runner::host {

/// What this user can still write on the file system of `path`, or of its nearest existing parent.
/// @errors permission_denied, io_error
[[nodiscard]] Result<std::uint64_t> free_disk_bytes(const std::string& path);

/// For what is written at once. @param purpose  e.g. "the share disk"
/// @errors resource_exhausted: less than `needed_bytes` free, with both numbers and the folder
[[nodiscard]] Result<void> require_disk_space(const std::string& path, std::uint64_t needed_bytes,
                                              std::string_view purpose);

/// For a sparse file that may grow to `full_bytes`. @return the warning with both numbers where it
/// cannot, or nullopt
[[nodiscard]] Result<std::optional<std::string>>
warn_disk_space(const std::string& path, std::uint64_t full_bytes, std::string_view purpose);

} // namespace host_runner::host

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The files of an image directory, found without ever leaving it.

#include <string>
#include <string_view>

#include "host_runner/base/error.hpp"

namespace host_runner::image {

inline constexpr std::string_view metadata_name = "metadata.json";
inline constexpr std::string_view sums_name = "sha256sum.txt";
inline constexpr std::string_view digest_name = "digest.txt";

/// The canonical path of the regular file `name` (safe by is_safe_file_name()) in `directory`
/// (canonical). Symbolic links are followed only inside the directory.
/// @errors not_found; corrupt_data: not a regular file, or a link that leaves the directory
[[nodiscard]] Result<std::string> find_image_file(const std::string& directory,
                                                  std::string_view name);

} // namespace host_runner::image

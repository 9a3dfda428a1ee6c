// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Paths of the guest, kept beneath the directory they start from by the kernel (openat2).

#include <cstdint>
#include <string>

#include <sys/types.h>

#include "fd_table.hpp"

namespace host_runner::wasm::wasi {

enum class LastLink : std::uint8_t { keep, follow }; ///< A symbolic link at the end of a path.

/// Opens `path` beneath `folder`, with O_CLOEXEC. An escape or an absolute path or link is PERM;
/// `..` and links that stay beneath are followed. The race that the kernel reports when somebody
/// renames meanwhile is tried again, then AGAIN.
[[nodiscard]] Answer<UniqueFd> open_beneath(const Folder& folder, const std::string& path,
                                            int flags, LastLink last, mode_t mode = 0);

/// A path's last part and the open directory (O_PATH) that holds it.
struct Place {
    UniqueFd parent;
    std::string name;            ///< One part, never empty, "." or "..".
    bool trailing_slash = false; ///< The path said that the name is a directory.
};

/// For the calls that take a name in a directory. A path that ends in "." or ".." has no such name:
/// it is `for_dots` when it leads to something beneath, otherwise the error of looking for it.
[[nodiscard]] Answer<Place> find_place(const Folder& folder, std::string path, Errno for_dots);

/// What a path with a trailing slash means for a call that is not for directories:
/// `for_directory` when it is one, NOTDIR when it is something else, NOENT.
[[nodiscard]] Answer<void> refuse_trailing_slash(const Place& place, Errno for_directory);

} // namespace host_runner::wasm::wasi

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Files as the runner needs them: bounded reads, atomic writes, safe removal, locks.
/// Paths are plain strings. Every function is thread-safe; none follows a rule of the umask.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <sys/types.h>

#include "host_runner/base/error.hpp"
#include "host_runner/base/unique_fd.hpp"

namespace host_runner {

/// The whole file, at most `max_bytes`.
/// @errors not_found, permission_denied, io_error; corrupt_data: larger than the cap
[[nodiscard]] Result<std::string> read_file(const std::string& path, std::size_t max_bytes);

/// Everything from `fd` up to its end, at most `max_bytes` (corrupt_data above).
[[nodiscard]] Result<std::string> read_all(int fd, std::size_t max_bytes);

/// All of `bytes`, over EINTR and short writes.
[[nodiscard]] Result<void> write_all(int fd, std::string_view bytes);

/// Replaces `path` so that a reader sees the old or the new bytes, never a part, also after a
/// crash: temporary name in the same folder, fsync, rename, fsync of the folder.
[[nodiscard]] Result<void> write_file_atomic(const std::string& path, std::string_view bytes,
                                             mode_t mode = 0600);

/// Makes the folder and its parents; an existing folder is fine. New ones get `mode` exactly.
[[nodiscard]] Result<void> make_directories(const std::string& path, mode_t mode = 0700);

/// Names in a folder, sorted, without "." and "..".
[[nodiscard]] Result<std::vector<std::string>> list_directory(const std::string& path);

/// Removes a folder tree, but only when it holds the file `marker` (so that a wrong path never
/// costs data); never follows symbolic links. The marker goes last, so that an interrupted
/// removal can be repeated.
/// @errors wrong_state: no marker; not_found: no such folder
[[nodiscard]] Result<void> remove_tree(const std::string& path, const std::string& marker);

/// Removes one file; a missing one is fine.
[[nodiscard]] Result<void> remove_file(const std::string& path);

/// An exclusive lock on `path` (made with mode 0600 when missing), held until the descriptor is
/// closed and inherited by nobody (O_CLOEXEC). An open-file-description lock (fcntl F_OFD_SETLK):
/// freed by the kernel when the holder dies.
/// @errors already_exists: somebody holds it
[[nodiscard]] Result<UniqueFd> try_lock_file(const std::string& path);

/// True when somebody holds the lock of try_lock_file(). A missing file is not locked.
[[nodiscard]] Result<bool> is_file_locked(const std::string& path);

[[nodiscard]] bool path_exists(const std::string& path) noexcept;

/// `path` made absolute and free of "." and ".." and symbolic links.
/// @errors not_found
[[nodiscard]] Result<std::string> canonical_path(const std::string& path);

/// "a/b" + "c" -> "a/b/c"; an absolute `name` stays as it is.
[[nodiscard]] std::string join_path(std::string_view folder, std::string_view name);

/// "a/b/c.yaml" -> "a/b", "c.yaml" -> "."
[[nodiscard]] std::string parent_path(std::string_view path);

/// "a/b/c.yaml" -> "c.yaml"
[[nodiscard]] std::string base_name(std::string_view path);

} // namespace host_runner

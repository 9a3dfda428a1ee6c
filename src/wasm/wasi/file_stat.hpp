// SPDX-License-Identifier: Apache-2.0
#pragma once

/// What kind of thing a descriptor or a path is, in the guest's terms.

#include <cstddef>
#include <span>

#include <sys/stat.h>

#include "state.hpp"

namespace host_runner::wasm::wasi {

[[nodiscard]] layout::FileType file_type(mode_t mode) noexcept;

/// Sockets must be socket_stream, since guests' C libraries choose read or recv by it; streams of
/// ours are unknown.
[[nodiscard]] layout::FileType file_type(const Entry& entry) noexcept;

/// The type that getdents64 gives (DT_*).
[[nodiscard]] layout::FileType file_type_of_entry(unsigned char type) noexcept;

/// Writes a filestat. The guest learns which files are on the same device, but no number of the
/// host's.
void store_filestat(Context::State& state, std::span<std::byte> place, const struct stat& status);

} // namespace host_runner::wasm::wasi

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The guest's lists of buffers (iovec and ciovec have one layout).

#include <cstddef>
#include <span>

#include <sys/uio.h>

#include "state.hpp"

namespace host_runner::wasm::wasi {

/// More than one call moves at once: a regular file cannot be interrupted. The rest is a partial
/// result, which every guest must expect.
inline constexpr std::size_t max_transfer_bytes = std::size_t{1} << 20U;

/// The list at argument `pointer` with as many elements as argument `count` says, without empty
/// ones and cut after max_transfer_bytes. All of it is checked. Valid until the call ends.
/// INVAL: over 1024 elements (IOV_MAX of guest and host)
[[nodiscard]] Answer<std::span<iovec>> guest_buffers(Call& call, std::size_t pointer,
                                                     std::size_t count);

} // namespace host_runner::wasm::wasi

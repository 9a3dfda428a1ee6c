// SPDX-License-Identifier: Apache-2.0
#pragma once

/// What the calls with a path take from their arguments.

#include <string>

#include "resolve.hpp"
#include "state.hpp"

namespace host_runner::wasm::wasi {

/// The path at arguments `index` (pointer) and `index + 1` (length).
[[nodiscard]] inline Answer<std::string> path_argument(const Call& call, std::size_t index) {
    return call.memory.path(call.u32(index), call.u32(index + 1));
}

/// The directory that argument `index` names. BADF: not open; NOTDIR: something else
[[nodiscard]] inline Answer<Folder*> folder_argument(const Call& call, std::size_t index) {
    WASI_TRY(auto* const entry, call.file(index));
    auto* const folder = entry->as<Folder>();
    if (folder == nullptr)
        return refuse(Errno::notdir);
    return folder;
}

/// The same, for a call that changes something in it. PERM: read-only
[[nodiscard]] inline Answer<Folder*> writable_folder_argument(const Call& call, std::size_t index) {
    WASI_TRY(auto* const folder, folder_argument(call, index));
    if (folder->access != Access::read_write)
        return refuse(Errno::perm);
    return folder;
}

[[nodiscard]] inline Answer<LastLink> lookup_argument(const Call& call, std::size_t index) {
    WASI_TRY(const auto flags, call.flags(index, layout::lookup_follow));
    return flags != 0 ? LastLink::follow : LastLink::keep;
}

} // namespace host_runner::wasm::wasi

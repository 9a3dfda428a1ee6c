// SPDX-License-Identifier: Apache-2.0
#pragma once

/// What the functions of preview 1 share: a context's inside, and one call.

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <sys/types.h>
#include <sys/uio.h>

#include "fd_table.hpp"
#include "guest_memory.hpp"
#include "host_runner/wasm/wasi/context.hpp"

namespace host_runner::wasm::wasi {

struct Context::State {
    explicit State(std::size_t max_open_files) : files(max_open_files) {}

    std::vector<std::string> arguments;
    std::vector<std::string> environment; ///< "NAME=value"
    FdTable files;
    CallDeadline deadline;
    std::optional<std::uint32_t> exit_code;
    std::vector<iovec> buffers; ///< Of the current call; kept for its memory.
    std::vector<dev_t> devices; ///< Host devices seen; the guest gets the position plus 1.
};

/// One call of a function of preview 1.
struct Call {
    Context::State& state;
    GuestMemory memory;
    std::span<const std::uint64_t> arguments;

    [[nodiscard]] std::uint32_t u32(std::size_t index) const noexcept {
        return static_cast<std::uint32_t>(arguments[index]);
    }
    [[nodiscard]] std::uint64_t u64(std::size_t index) const noexcept {
        return arguments[index];
    }
    /// A 16-bit flag set; INVAL when a bit outside of `known` is set.
    [[nodiscard]] Answer<std::uint16_t> flags(std::size_t index, std::uint16_t known) const {
        if ((u32(index) & ~std::uint32_t{known}) != 0)
            return refuse(Errno::inval);
        return static_cast<std::uint16_t>(u32(index));
    }
    /// The open file that the argument names; BADF without one.
    [[nodiscard]] Answer<Entry*> file(std::size_t index) const {
        return state.files.get(u32(index));
    }
};

} // namespace host_runner::wasm::wasi

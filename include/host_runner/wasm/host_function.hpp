// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Functions of the host that a guest module imports, in terms that name no engine.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include <tl/expected.hpp>

namespace host_runner::wasm {

/// The value types our host functions use (WebAssembly 1.0, section 2.3.1, numbers).
enum class ValueType : std::uint8_t { i32, i64 };

/// Why a host function ends its guest.
enum class TrapReason : std::uint8_t {
    exit,          ///< The guest asked to end; the exit code is in the call's state.
    interrupted,   ///< The deadline passed or the call was cancelled.
    out_of_bounds, ///< A pointer or length of the guest leaves its memory, or is misaligned.
    limit,         ///< The guest passed a limit of the host, e.g. of captured output.
    host_failure,  ///< The host could not do its part; `message` says what.
};

struct Trap {
    TrapReason reason = TrapReason::host_failure;
    std::string message; ///< Sentence case, no final full stop.
};

/// One call from a guest. Valid during the call only, on the thread that makes it.
struct HostCall {
    /// What the caller of the guest attached to this call; its type is agreed with the module's
    /// owner.
    void* state = nullptr;
    /// The guest's exported linear memory as it is now; empty where the module has none.
    std::span<std::byte> memory;
    /// In order; an i32 is zero-extended. As many as the function declares.
    std::span<const std::uint64_t> arguments;
};

/// The i32 result (ignored where the function declares none), or the trap that ends the guest.
using HostResult = tl::expected<std::uint32_t, Trap>;

/// One importable function. `call` must not throw and must treat every argument as hostile.
struct HostFunction {
    std::string_view module; ///< e.g. "wasi_snapshot_preview1"
    std::string_view name;   ///< e.g. "fd_write"
    std::span<const ValueType> parameters;
    bool returns_i32 = true;
    HostResult (*call)(HostCall& call) noexcept = nullptr;
};

} // namespace host_runner::wasm

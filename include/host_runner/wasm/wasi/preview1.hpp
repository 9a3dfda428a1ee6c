// SPDX-License-Identifier: Apache-2.0
#pragma once

/// WASI preview 1: what a guest may import from `wasi_snapshot_preview1`.
///
///     for (const HostFunction& function : wasi::preview1_functions())
///         linker.define(function);          // once per engine
///     ...
///     HostCall::state = &context;           // a wasi::Context*, one per instance

#include <span>

#include "host_runner/wasm/host_function.hpp"

namespace host_runner::wasm::wasi {

/// All 46 functions, in the order of their names. They live as long as the program and hold no
/// state of their own, so that every thread may use them; `HostCall::state` must be a `Context*`
/// (see context.hpp) that only the calling thread uses.
///
/// The i32 result is an errno of WASI. A call traps with `exit` (proc_exit), `interrupted` (the
/// context's deadline), `out_of_bounds` (a pointer outside of the memory or misaligned) or
/// `host_failure` (no memory on the host, or a call without a context).
/// Source: WebAssembly/WASI, phases/snapshot/witx/wasi_snapshot_preview1.witx
[[nodiscard]] std::span<const HostFunction> preview1_functions() noexcept;

} // namespace host_runner::wasm::wasi

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <optional>

namespace host_runner::wasm {

/// What ends a call into WebAssembly from outside: a point in time, and a descriptor that becomes
/// readable on cancel.
///
/// The engine enforces it between guest instructions; every host function that waits must enforce
/// it too, because a guest that sleeps in the host runs no instructions.
struct CallDeadline {
    std::optional<std::chrono::steady_clock::time_point> at; ///< No limit when empty.
    /// An eventfd, readable once the call is cancelled; borrowed; -1 when nothing can cancel.
    int cancel_fd = -1;
};

} // namespace host_runner::wasm

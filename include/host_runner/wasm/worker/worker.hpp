// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The process that one module runs in: `guest_agent worker`. It has what the module may use and
/// nothing else, and what is wrong with the engine or the module ends here.

#include <string_view>

namespace host_runner::wasm::worker {

/// How a worker ends when its module did not exit by itself; the numbers follow what shells and
/// `timeout` answer for a program that ends likewise. A line on stderr says why.
enum class WorkerExit : int {
    limit = 123,         ///< Another limit than time and memory.
    timed_out = 124,     ///< As timeout(1).
    host_failed = 125,   ///< The worker could not do its part.
    not_runnable = 126,  ///< The module cannot be loaded, or imports what the host does not have.
    trapped = 134,       ///< As a program that aborts.
    out_of_memory = 137, ///< As a program that the kernel kills for its memory.
    cancelled = 143,     ///< SIGTERM or SIGINT came.
};

/// The descriptors of the module: 0 is empty, 1 and 2 are the worker's own; then the root folder as
/// "/" where it has files; then the listeners, in the order of their ports. FD_COUNT and FD_NAMES
/// are added to its environment, where these are not set: a listener's name is its port.
/// Source: enarx/enarx 0.7.1, crates/exec-wasmtime, for the two variables
///
/// @param request as encode_request() writes it
/// @return the process's exit code: the module's own (its lowest eight bits; 1 when these are 0 and
///         it gave another number), else a WorkerExit
[[nodiscard]] int worker_main(std::string_view request);

} // namespace host_runner::wasm::worker

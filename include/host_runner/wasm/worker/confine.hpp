// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "host_runner/base/error.hpp"

namespace host_runner::wasm::worker {

/// What a worker does beside running a command.
struct ConfineOptions {
    bool serves_http = false;      ///< An event loop of its own.
    bool serves_functions = false; ///< A pipe and an eventfd for each call.
    bool opens_connections = false;
};

/// Allows this process, all its threads and for ever, only the system calls that running a module
/// takes: no new processes, programs, listeners or executable memory, and sockets only where
/// `opens_connections`. Another call ends the process by SIGSYS.
/// @errors unsupported: the kernel has no seccomp filters
[[nodiscard]] Result<void> confine(const ConfineOptions& options = {});

} // namespace host_runner::wasm::worker

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "host_runner/base/error.hpp"

namespace host_runner::wasm::worker {

/// Allows this process, all its threads and for ever, only the system calls that running a module
/// takes: no new processes, programs, sockets or listeners, no path that is not beneath an open
/// folder. Another call ends the process by SIGSYS.
/// @errors unsupported: the kernel has no seccomp filters
[[nodiscard]] Result<void> confine();

} // namespace host_runner::wasm::worker

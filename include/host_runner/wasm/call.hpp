// SPDX-License-Identifier: Apache-2.0
#pragma once

/// One call into a guest module: what it is given, what it may use, and how it ended.

#include <chrono>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "host_runner/wasm/call_deadline.hpp"

namespace host_runner::wasm {

/// What one call may use of the machine.
struct CallLimits {
    /// All memory of the instance; more than EngineSettings::max_memory_bytes is cut to it.
    std::uint64_t memory_bytes = std::uint64_t{64} << 20;
    /// Elements of each table; more than EngineSettings::table_elements is cut to it.
    std::uint64_t table_elements = 20000;
};

struct CallRequest {
    /// The exported function to call; empty: the module's entry (see Program::entry()).
    std::string_view function;
    /// In order. An i32 is zero-extended; f32 and f64 are their bits.
    std::span<const std::uint64_t> arguments;
    CallLimits limits;
    CallDeadline deadline;
    /// Given to every host function as HostCall::state. Must stay valid during the call.
    void* state = nullptr;
    /// How long to wait for a free place in the pool; the deadline ends the wait too.
    std::chrono::milliseconds wait_for_place{1000};
};

/// How a call ended.
enum class CallEnd : std::uint8_t {
    returned,      ///< The function returned.
    exited,        ///< The guest asked to end (TrapReason::exit); its code is in the call's state.
    trapped,       ///< The guest did what WebAssembly forbids, or ended itself by `unreachable`.
    timed_out,     ///< The deadline passed.
    cancelled,     ///< CallDeadline::cancel_fd became readable.
    out_of_memory, ///< The guest was refused memory and gave up because of it.
    limit,         ///< Another limit: table size, depth of calls, one of a host function.
    host_failed,   ///< A host function could not do its part (TrapReason::host_failure).
};

/// The name as in logs and JSON, e.g. "out_of_memory".
[[nodiscard]] std::string_view to_string(CallEnd end) noexcept;

/// A place in the guest's code.
struct Frame {
    std::uint32_t function_index = 0;
    std::uint64_t module_offset = 0; ///< In bytes from the start of the module's file.
    std::string function;            ///< From the module's name section; empty without one.
};

struct Outcome {
    CallEnd end = CallEnd::returned;
    std::vector<std::uint64_t> results;  ///< When it returned; encoded as the arguments are.
    std::string message;                 ///< Why it did not return; sentence case, no full stop.
    std::vector<Frame> backtrace;        ///< Innermost first; empty when it returned or exited.
    std::uint64_t memory_peak_bytes = 0; ///< What the instance's memories grew to.
};

} // namespace host_runner::wasm

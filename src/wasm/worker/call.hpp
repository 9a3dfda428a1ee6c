// SPDX-License-Identifier: Apache-2.0
#pragma once

/// One call of a function: what the worker's loop, the thread that runs the call and what executes
/// it share.

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "host_runner/base/error.hpp"
#include "host_runner/base/unique_fd.hpp"
#include "host_runner/protocol/invocation.hpp"
#include "host_runner/wasm/call_deadline.hpp"
#include "worlds.hpp"

namespace host_runner::wasm::worker {

/// @return false: the deadline has passed or the call was cancelled
[[nodiscard]] bool wait_for(int fd, short events, const CallDeadline& deadline) noexcept;

/// The agent's socket. One message is one frame, sent whole or not at all, so that threads share
/// it without a lock.
class Channel {
public:
    explicit Channel(UniqueFd fd) : fd_(std::move(fd)) {}
    [[nodiscard]] int fd() const noexcept {
        return fd_.get();
    }
    /// False: there is no room at the moment.
    [[nodiscard]] bool try_send(const std::string& frame) const noexcept;
    /// Waits for room, but not beyond the deadline. @return whether it was sent
    bool send(const std::string& frame, const CallDeadline& deadline) const noexcept;

private:
    UniqueFd fd_;
};

struct Call {
    std::uint64_t number = 0;
    protocol::InvokeRequest request;
    std::chrono::steady_clock::time_point arrived;
    std::chrono::steady_clock::time_point deadline;
    UniqueFd cancel;       ///< eventfd
    UniqueFd input_reader; ///< Of a pipe that does not block; taken by what executes the call.
    /// For stdout and stderr; never below zero. The event says that there is more.
    std::atomic<std::size_t> output_room{protocol::output_room_bytes};
    UniqueFd output_room_came;

    // The loop's alone:
    UniqueFd input_writer; ///< Closed after the last byte, or when nobody reads any more.
    std::string input;     ///< For which the pipe has no room yet.
    bool input_ended = false;
    std::size_t room_to_tell = 0;

    /// What ends it from outside.
    [[nodiscard]] CallDeadline limits() const {
        return {deadline, cancel.get()};
    }
};

/// Sends what a call writes, as far as its cap and the caller's room go, and counts it.
class CallOutput {
public:
    /// @param result gets the counts
    CallOutput(const Channel& channel, Call& call, const protocol::AppCallLimits& limits,
               protocol::InvokeResult& result);
    /// @return false: the call is over
    bool write(protocol::FrameKind kind, std::string_view bytes);

private:
    const Channel& channel_;
    Call& call_;
    protocol::InvokeResult& result_;
    std::uint64_t cap_;
};

/// Runs calls, from several threads at once. It fills in status, code, message and memory.
class Executor {
public:
    Executor() = default;
    Executor(const Executor&) = delete;
    Executor& operator=(const Executor&) = delete;
    virtual ~Executor() = default;
    /// @param on_start is called when the module is about to run
    virtual void run(Call& call, CallOutput& output, const std::function<void()>& on_start,
                     protocol::InvokeResult& result) = 0;
};

/// A core module: its `_start` with stdin, stdout and stderr. `start` must outlive it.
[[nodiscard]] Result<std::unique_ptr<Executor>> make_module_executor(Start& start);
/// A component of wasi:http/proxy: POST, with the input as body, whose answer is the output.
[[nodiscard]] Result<std::unique_ptr<Executor>> make_component_executor(Start& start);

} // namespace host_runner::wasm::worker

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Calls of functions, as frames: between the runner's side and the agent on the invocation ports,
/// and between the agent and the worker of a function, where one message of the socket is one
/// frame. docs/protocols.md ("Invocations") says which side sends what and when.
///
///     channel.write(encode_frame({FrameKind::request, call, encode_invoke_request(request)}));
///     ...
///     reader.push(bytes);
///     for (;;) {
///         HR_TRY(const auto frame, reader.next());   // an error ends the session
///         if (!frame)
///             break;
///         ...
///     }

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "host_runner/base/error.hpp"

namespace host_runner::protocol {

enum class FrameKind : std::uint8_t {
    hello = 1,    ///< Host: a session begins, an earlier one has ended. 16 bytes, new each time.
    ready = 2,    ///< Guest: the hello's 16 bytes, then JSON (SessionReady).
    request,      ///< Host: a call (InvokeRequest) under a number that the session has not used.
    started,      ///< Guest: the module runs.
    input,        ///< Host: bytes for stdin; no more than there is room for.
    input_end,    ///< Host: nothing follows on stdin.
    input_room,   ///< Guest: room for so many more bytes of stdin, u32.
    output,       ///< Guest: bytes of stdout; no more than there is room for.
    error_output, ///< Guest: bytes of stderr, likewise; both share the room.
    output_room,  ///< Host: room for so many more bytes of stdout and stderr, u32.
    result,       ///< Guest: the call's end (InvokeResult). Exactly one for each request.
    cancel,       ///< Host: end the call. Too late is fine.
    broken        ///< Guest: text; it gives the session up. Call 0.
};
[[nodiscard]] std::string_view to_string(FrameKind kind) noexcept;

struct Frame {
    FrameKind kind = FrameKind::broken;
    std::uint64_t call = 0; ///< 0: the session.
    std::string_view payload;
};

inline constexpr std::size_t frame_header_bytes = 18;
inline constexpr std::size_t max_frame_payload_bytes = 64UL * 1024;
inline constexpr std::size_t hello_bytes = 16;
/// Room at a call's start, and the most there can be: for stdin, and for stdout with stderr.
inline constexpr std::size_t input_room_bytes = 64UL * 1024;
inline constexpr std::size_t output_room_bytes = 128UL * 1024;

/// @param frame with a payload of at most max_frame_payload_bytes
[[nodiscard]] std::string encode_frame(const Frame& frame);

/// One frame, the whole of `message`. The payload points into it.
/// @errors corrupt_data: not a frame, or not the whole of one
[[nodiscard]] Result<Frame> decode_frame(std::string_view message);

/// Cuts a stream of bytes into frames.
class FrameReader {
public:
    void push(std::string_view bytes);
    /// nullopt: what is there is no whole frame yet. The payload is valid until the next push().
    /// After an error the stream has no meaning any more.
    /// @errors corrupt_data
    [[nodiscard]] Result<std::optional<Frame>> next();
    /// Drops everything up to the `ready` of this hello: what an earlier session left behind.
    /// @return whether it was there; if not, push more. next() then gives the frames after it.
    [[nodiscard]] bool skip_to_ready(std::string_view hello);

private:
    std::string buffer_;
    std::size_t begin_ = 0;
};

struct SessionReady {
    std::string agent_version;
};
[[nodiscard]] std::string encode_session_ready(const SessionReady& ready);
[[nodiscard]] Result<SessionReady> decode_session_ready(std::string_view json);

struct InvokeRequest {
    std::string function;                                ///< A service of the world `function`.
    std::vector<std::string> arguments = {};             ///< After the service's own.
    std::map<std::string, std::string> environment = {}; ///< Wins over the service's own.
    /// Of the whole call, from its arrival; the service's own if that is shorter. 0: that one.
    std::chrono::milliseconds timeout{0};
    /// Of stdout and of stderr each; the service's own if that is less. nullopt: that one.
    std::optional<std::uint64_t> output_bytes = {};
};
inline constexpr std::size_t max_call_arguments = 1024;
inline constexpr std::size_t max_call_variables = 256;

/// @errors invalid_argument: it does not fit into a frame
[[nodiscard]] Result<std::string> encode_invoke_request(const InvokeRequest& request);
/// An unknown member is an error: a limit that nobody applies is worse than none.
/// @errors invalid_argument
[[nodiscard]] Result<InvokeRequest> decode_invoke_request(std::string_view json);

/// How a call ended.
enum class CallStatus : std::uint8_t {
    exit,        ///< The module ended by itself; `code` says how.
    trap,        ///< It did what WebAssembly forbids, or gave up.
    timeout,     ///< Its time was over.
    oom,         ///< It was refused memory and gave up.
    limit,       ///< Another limit.
    cancelled,   ///< By the caller, or because the service was stopped.
    overloaded,  ///< Too many calls already; not started.
    unavailable, ///< The function does not run at the moment; not started.
    bad_request, ///< Not started.
    failed,      ///< The worker could not do its part.
    lost,        ///< The worker, or the VM, ended during the call.
};
[[nodiscard]] std::string_view to_string(CallStatus status) noexcept;

struct InvokeResult {
    CallStatus status = CallStatus::lost;
    int code = 0;        ///< Of `exit`: 0 to 255.
    std::string message; ///< Why; of `exit` a component's status that is no success.
    /// What the module wrote; what is above the cap was not sent.
    std::uint64_t output_bytes = 0;
    std::uint64_t error_output_bytes = 0;
    bool truncated = false;
    std::chrono::microseconds duration{0}; ///< From the call's arrival at its worker.
    std::uint64_t memory_peak_bytes = 0;   ///< Of the instance's linear memory.
};
/// Long messages are cut.
[[nodiscard]] std::string encode_invoke_result(const InvokeResult& result);
/// @errors invalid_argument
[[nodiscard]] Result<InvokeResult> decode_invoke_result(std::string_view json);

/// Of `input_room` and `output_room`.
[[nodiscard]] std::string encode_room(std::uint32_t bytes);
/// @errors corrupt_data
[[nodiscard]] Result<std::uint32_t> decode_room(std::string_view payload);

} // namespace host_runner::protocol

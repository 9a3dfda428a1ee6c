// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The host's end of an invocation port: calls functions of a guest, many at a time.
///
///     HR_TRY(auto session, FunctionSession::open(*loop, paths.channel_socket(5), 10s));
///     HR_TRY(const auto call, session->begin({.function = "greet"}, handlers));
///     session->write_input(call, payload);
///     session->end_input(call);
///     HR_CHECK(loop->run());   // until on_result
///
/// A port has one host at a time: hold its lock (lock_invocation_port()) while a session is open.
/// Everything on the loop's thread. The guest is not trusted: frames are bounded, and what breaks
/// the rules ends the session.

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "host_runner/base/error.hpp"
#include "host_runner/base/event_loop.hpp"
#include "host_runner/base/files.hpp"
#include "host_runner/base/unique_fd.hpp"
#include "host_runner/instance/registry.hpp"
#include "host_runner/protocol/invocation.hpp"

namespace host_runner::instance {

/// One of an instance's invocation ports, for as long as the lock lives.
struct InvocationPort {
    std::string socket;
    UniqueFd lock;
};
/// Takes a port that nobody uses; waits for one up to `patience`.
/// @errors unsupported: the guest has none; resource_exhausted: all were in use all the time
[[nodiscard]] Result<InvocationPort> lock_invocation_port(const InstancePaths& paths,
                                                          std::chrono::milliseconds patience);

class FunctionSession {
public:
    enum class Stream { output, error_output };
    /// None of them may destroy the session. All but on_result may be empty.
    struct Handlers {
        /// The guest gets room for more by give_room(); without it, it stops at
        /// protocol::output_room_bytes.
        std::function<void(Stream, std::string_view)> on_output;
        /// Input that had to wait is on its way: it may be the time for more.
        std::function<void()> on_input_sent;
        /// The end of the call, once. `lost` also where the session or the VM ended.
        std::function<void(const protocol::InvokeResult&)> on_result;
    };

    /// Blocks until the guest answers, and tries again while it does not.
    /// @errors unavailable: no answer within `timeout`; corrupt_data: not of this protocol
    [[nodiscard]] static Result<std::unique_ptr<FunctionSession>>
    open(EventLoop& loop, const std::string& socket, std::chrono::milliseconds timeout);
    FunctionSession(const FunctionSession&) = delete;
    FunctionSession& operator=(const FunctionSession&) = delete;
    /// Calls that run are cancelled by the guest, without a word to their handlers.
    ~FunctionSession();

    /// Where the request has a time-out, a guest that does not keep it is given up 5 s later.
    /// @return the call's number
    /// @errors invalid_argument: the request is too large; unavailable: the session has ended
    [[nodiscard]] Result<std::uint64_t> begin(const protocol::InvokeRequest& request,
                                              Handlers handlers);
    /// More of stdin. Kept until the guest has room. Nothing after the call's end or end_input().
    void write_input(std::uint64_t call, std::string_view bytes);
    void end_input(std::uint64_t call);
    /// Bytes of input that wait for room.
    [[nodiscard]] std::size_t waiting_input(std::uint64_t call) const;
    /// So many bytes of output are taken care of.
    void give_room(std::uint64_t call, std::size_t bytes);
    /// The result still comes. Unknown calls are fine.
    void cancel(std::uint64_t call);

private:
    struct Call;
    FunctionSession(EventLoop& loop, UniqueFd fd, protocol::FrameReader reader);
    void on_ready(std::uint32_t events);
    void read_frames();
    void take(const protocol::Frame& frame);
    void feed(std::uint64_t number, Call& call);
    void send(const protocol::Frame& frame);
    void flush();
    void end(const std::string& why);

    EventLoop& loop_;
    UniqueFd fd_;
    protocol::FrameReader reader_;
    std::string out_;
    bool is_writing_ = false; ///< EPOLLOUT is waited for.
    std::uint64_t last_call_ = 0;
    std::map<std::uint64_t, std::unique_ptr<Call>> calls_;
};

} // namespace host_runner::instance

// SPDX-License-Identifier: Apache-2.0
#include "host_runner/instance/function_session.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <thread>
#include <utility>

#include <poll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include <fmt/format.h>

#include "host_runner/instance/logs.hpp"
#include "host_runner/net/http_client.hpp"
#include "host_runner/protocol/channel.hpp"

namespace host_runner::instance {

namespace {

using Clock = std::chrono::steady_clock;
using protocol::Frame;
using protocol::FrameKind;
using std::chrono::milliseconds;

constexpr milliseconds pause_between_tries{300}; // above what the guest takes for an absence
constexpr milliseconds one_try{1000};
constexpr milliseconds grace_after_timeout{5000};
/// What an earlier session can have left in the channel.
constexpr std::size_t max_skipped_bytes = 4UL * 1024 * 1024;

Result<std::string> new_hello() {
    std::string hello(protocol::hello_bytes, '\0');
    if (::getrandom(hello.data(), hello.size(), 0) != static_cast<ssize_t>(hello.size()))
        return fail_errno("Cannot get random bytes", errno);
    return hello;
}

/// Waits for the `ready` of this hello. @return whether it came in time
Result<bool> await_ready(int fd, const std::string& hello, Clock::time_point until,
                         protocol::FrameReader& reader) {
    std::array<char, 16384> buffer{};
    std::size_t skipped = 0;
    for (;;) {
        const auto left = std::chrono::ceil<milliseconds>(until - Clock::now());
        pollfd waiting{fd, POLLIN, 0};
        if (left.count() <= 0 || ::poll(&waiting, 1, static_cast<int>(left.count())) == 0)
            return false;
        const ssize_t count = ::read(fd, buffer.data(), buffer.size());
        if (count < 0 && (errno == EAGAIN || errno == EINTR))
            continue;
        if (count <= 0)
            return false;
        reader.push({buffer.data(), static_cast<std::size_t>(count)});
        if (reader.skip_to_ready(hello)) {
            HR_TRY(const auto frame, reader.next());
            if (frame) {
                HR_CHECK(protocol::decode_session_ready(frame->payload.substr(hello.size())));
                return true;
            }
        }
        skipped += static_cast<std::size_t>(count);
        if (skipped > max_skipped_bytes)
            return fail(ErrorCode::corrupt_data,
                        "The guest's invocation port is full of what was not asked for");
    }
}

} // namespace

Result<InvocationPort> lock_invocation_port(const InstancePaths& paths, milliseconds patience) {
    const auto until = Clock::now() + patience;
    for (;;) {
        for (const auto number : protocol::invocation_ports) {
            auto socket = paths.channel_socket(number);
            if (!path_exists(socket))
                return fail(ErrorCode::unsupported,
                            "The guest of this VM has no channel on which it could be called",
                            "images that are not ours have none");
            auto lock = try_lock_file(socket + ".lock");
            if (lock)
                return InvocationPort{std::move(socket), std::move(*lock)};
            if (lock.error().code != ErrorCode::already_exists)
                return tl::unexpected<Error>(lock.error());
        }
        if (Clock::now() >= until)
            return fail(ErrorCode::resource_exhausted,
                        fmt::format("All {} invocation ports of this VM are in use",
                                    protocol::invocation_ports.size()),
                        "wait for the end of another call");
        std::this_thread::sleep_for(milliseconds(20));
    }
}

struct FunctionSession::Call {
    Handlers handlers;
    std::string input;
    std::size_t input_room = protocol::input_room_bytes;
    bool input_ended = false;
    bool end_sent = false;
    std::uint64_t output_cap = UINT64_MAX;
    std::array<std::uint64_t, 2> output_bytes{};
    std::size_t output_room = protocol::output_room_bytes; ///< The guest's, as it was told.
    std::size_t room_to_give = 0;
    EventLoop::TimerId overdue = 0;
};

Result<std::unique_ptr<FunctionSession>>
FunctionSession::open(EventLoop& loop, const std::string& socket, milliseconds timeout) {
    const auto until = Clock::now() + timeout;
    do {
        HR_TRY(auto fd, net::connect_unix(socket)());
        HR_TRY(const auto hello, new_hello());
        const auto frame = protocol::encode_frame({FrameKind::hello, 0, hello});
        protocol::FrameReader reader;
        if (::send(fd.get(), frame.data(), frame.size(), MSG_NOSIGNAL) ==
            static_cast<ssize_t>(frame.size())) {
            HR_TRY(const bool is_ready,
                   await_ready(fd.get(), hello, std::min(until, Clock::now() + one_try), reader));
            if (is_ready) {
                const int raw = fd.get();
                std::unique_ptr<FunctionSession> session(
                    new FunctionSession(loop, std::move(fd), std::move(reader)));
                HR_CHECK(
                    loop.watch(raw, EPOLLIN, [raw_session = session.get()](std::uint32_t events) {
                        raw_session->on_ready(events);
                    }));
                return session;
            }
        }
        // The guest shall notice that the session is over.
        fd.reset();
        std::this_thread::sleep_for(pause_between_tries);
    } while (Clock::now() < until);
    return fail(ErrorCode::unavailable,
                fmt::format("The guest does not answer on its invocation port within {} ms",
                            timeout.count()),
                "it may still be booting, or its image is of an older release");
}

FunctionSession::FunctionSession(EventLoop& loop, UniqueFd fd, protocol::FrameReader reader)
    : loop_(loop), fd_(std::move(fd)), reader_(std::move(reader)) {}

FunctionSession::~FunctionSession() {
    for (const auto& [number, call] : calls_)
        loop_.cancel(call->overdue);
    if (fd_)
        loop_.unwatch(fd_.get());
}

Result<std::uint64_t> FunctionSession::begin(const protocol::InvokeRequest& request,
                                             Handlers handlers) {
    if (!fd_)
        return fail(ErrorCode::unavailable, "The session with the guest has ended");
    HR_TRY(const auto payload, protocol::encode_invoke_request(request));
    const auto number = ++last_call_;
    auto call = std::make_unique<Call>();
    call->handlers = std::move(handlers);
    call->output_cap = request.output_bytes.value_or(UINT64_MAX);
    if (request.timeout.count() > 0)
        call->overdue = loop_.call_after(request.timeout + grace_after_timeout, [this] {
            end("the guest does not end a call whose time is over");
        });
    calls_.emplace(number, std::move(call));
    send({FrameKind::request, number, payload});
    return number;
}

void FunctionSession::write_input(std::uint64_t number, std::string_view bytes) {
    const auto found = calls_.find(number);
    if (found == calls_.end() || found->second->input_ended)
        return;
    found->second->input += bytes;
    feed(number, *found->second);
}

void FunctionSession::end_input(std::uint64_t number) {
    const auto found = calls_.find(number);
    if (found == calls_.end())
        return;
    found->second->input_ended = true;
    feed(number, *found->second);
}

std::size_t FunctionSession::waiting_input(std::uint64_t number) const {
    const auto found = calls_.find(number);
    return found == calls_.end() ? 0 : found->second->input.size();
}

void FunctionSession::give_room(std::uint64_t number, std::size_t bytes) {
    const auto found = calls_.find(number);
    if (found == calls_.end())
        return;
    auto& call = *found->second;
    call.room_to_give += bytes;
    // In large pieces: most calls never need any.
    if (call.room_to_give < protocol::output_room_bytes / 2)
        return;
    call.output_room += call.room_to_give;
    send({FrameKind::output_room, number,
          protocol::encode_room(static_cast<std::uint32_t>(std::exchange(call.room_to_give, 0)))});
}

void FunctionSession::cancel(std::uint64_t number) {
    if (calls_.contains(number))
        send({FrameKind::cancel, number, ""});
}

void FunctionSession::feed(std::uint64_t number, Call& call) {
    std::size_t sent = 0;
    while (sent < call.input.size() && call.input_room > 0) {
        const auto piece =
            std::string_view(call.input)
                .substr(sent, std::min(call.input_room, protocol::max_frame_payload_bytes));
        send({FrameKind::input, number, piece});
        sent += piece.size();
        call.input_room -= piece.size();
    }
    call.input.erase(0, sent);
    if (call.input.empty() && call.input_ended && !std::exchange(call.end_sent, true))
        send({FrameKind::input_end, number, ""});
}

void FunctionSession::send(const Frame& frame) {
    if (!fd_)
        return;
    out_ += protocol::encode_frame(frame);
    flush();
}

void FunctionSession::flush() {
    std::size_t written = 0;
    while (written < out_.size()) {
        const ssize_t count = ::send(fd_.get(), out_.data() + written, out_.size() - written,
                                     MSG_DONTWAIT | MSG_NOSIGNAL);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            break; // full, or ended: the loop tells
        written += static_cast<std::size_t>(count);
    }
    out_.erase(0, written);
    if (std::exchange(is_writing_, !out_.empty()) != is_writing_)
        static_cast<void>(
            loop_.rewatch(fd_.get(), is_writing_ ? EPOLLIN | EPOLLOUT : std::uint32_t{EPOLLIN}));
}

void FunctionSession::on_ready(std::uint32_t events) {
    if ((events & EPOLLOUT) != 0)
        flush();
    if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0)
        read_frames();
}

void FunctionSession::read_frames() {
    std::array<char, 65536> buffer{};
    const ssize_t count = ::read(fd_.get(), buffer.data(), buffer.size());
    if (count < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (count <= 0) {
        end("the VM has ended");
        return;
    }
    reader_.push({buffer.data(), static_cast<std::size_t>(count)});
    while (fd_) {
        const auto frame = reader_.next();
        if (!frame) {
            end(frame.error().describe());
            return;
        }
        if (!*frame)
            return;
        take(**frame);
    }
}

void FunctionSession::take(const Frame& frame) {
    if (frame.kind == FrameKind::broken) {
        end(fmt::format("the guest says: {}", printable(frame.payload)));
        return;
    }
    const auto found = calls_.find(frame.call);
    if (found == calls_.end())
        return; // given up meanwhile
    auto& call = *found->second;
    switch (frame.kind) {
    case FrameKind::output:
    case FrameKind::error_output: {
        const bool is_error = frame.kind == FrameKind::error_output;
        auto& bytes = call.output_bytes.at(is_error ? 1 : 0);
        bytes += frame.payload.size();
        if (bytes > call.output_cap || frame.payload.size() > call.output_room) {
            end("the guest sends more output than it may");
            return;
        }
        call.output_room -= frame.payload.size();
        if (call.handlers.on_output)
            call.handlers.on_output(is_error ? Stream::error_output : Stream::output,
                                    frame.payload);
        return;
    }
    case FrameKind::input_room: {
        const auto room = protocol::decode_room(frame.payload);
        if (!room) {
            end(room.error().describe());
            return;
        }
        call.input_room =
            std::min<std::size_t>(call.input_room + *room, protocol::input_room_bytes);
        const bool had_to_wait = !call.input.empty();
        feed(frame.call, call);
        if (had_to_wait && call.input.empty() && call.handlers.on_input_sent)
            call.handlers.on_input_sent();
        return;
    }
    case FrameKind::result: {
        const auto result = protocol::decode_invoke_result(frame.payload);
        if (!result) {
            end(result.error().describe());
            return;
        }
        loop_.cancel(call.overdue);
        const auto handlers = std::move(call.handlers);
        calls_.erase(found);
        handlers.on_result(*result);
        return;
    }
    default: // started, and what a later release may say
        return;
    }
}

void FunctionSession::end(const std::string& why) {
    if (!fd_)
        return;
    loop_.unwatch(fd_.get());
    fd_.reset();
    protocol::InvokeResult result;
    result.status = protocol::CallStatus::lost;
    result.message = fmt::format("The call was lost: {}", why);
    for (const auto& [number, call] : std::exchange(calls_, {})) {
        loop_.cancel(call->overdue);
        call->handlers.on_result(result);
    }
}

} // namespace host_runner::instance

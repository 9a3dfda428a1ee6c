// SPDX-License-Identifier: Apache-2.0
#include "call.hpp"

#include <algorithm>
#include <array>
#include <cerrno>

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

namespace host_runner::wasm::worker {

namespace {

/// @return 0: the call is over
std::size_t wait_for_room(const Call& call) {
    for (;;) {
        if (const std::size_t room = call.output_room; room > 0)
            return room;
        if (!wait_for(call.output_room_came.get(), POLLIN, call.limits()))
            return 0;
        std::uint64_t count = 0;
        static_cast<void>(!::read(call.output_room_came.get(), &count, sizeof count));
    }
}

/// The lesser of the service's and the call's.
std::uint64_t cap_of(const Call& call, const protocol::AppCallLimits& limits) {
    const auto own = limits.output_bytes == 0 ? UINT64_MAX : limits.output_bytes;
    return std::min(own, call.request.output_bytes.value_or(UINT64_MAX));
}

} // namespace

bool wait_for(int fd, short events, const CallDeadline& deadline) noexcept {
    int wait_ms = -1;
    if (deadline.at) {
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(
            *deadline.at - std::chrono::steady_clock::now());
        if (left.count() <= 0)
            return false;
        wait_ms = static_cast<int>(std::min<std::int64_t>(left.count(), 60'000));
    }
    std::array<pollfd, 2> waiting{{{fd, events, 0}, {deadline.cancel_fd, POLLIN, 0}}};
    return ::poll(waiting.data(), waiting.size(), wait_ms) <= 0 || waiting[1].revents == 0;
}

bool Channel::try_send(const std::string& frame) const noexcept {
    // An agent that has gone is noticed where the channel is read.
    return ::send(fd_.get(), frame.data(), frame.size(), MSG_DONTWAIT | MSG_NOSIGNAL) >= 0 ||
           (errno != EAGAIN && errno != EINTR && errno != ENOBUFS);
}

bool Channel::send(const std::string& frame, const CallDeadline& deadline) const noexcept {
    while (!try_send(frame))
        if (!wait_for(fd_.get(), POLLOUT, deadline))
            return false;
    return true;
}

CallOutput::CallOutput(const Channel& channel, Call& call, const protocol::AppCallLimits& limits,
                       protocol::InvokeResult& result)
    : channel_(channel), call_(call), result_(result), cap_(cap_of(call, limits)) {}

bool CallOutput::write(protocol::FrameKind kind, std::string_view bytes) {
    auto& count =
        kind == protocol::FrameKind::output ? result_.output_bytes : result_.error_output_bytes;
    auto rest = bytes.substr(0, cap_ - std::min(cap_, count));
    count += bytes.size();
    result_.truncated = result_.truncated || rest.size() < bytes.size();
    while (!rest.empty()) {
        const auto room = wait_for_room(call_);
        const auto piece = rest.substr(0, std::min(room, protocol::max_frame_payload_bytes));
        call_.output_room -= piece.size(); // before it can be given back
        if (room == 0 ||
            !channel_.send(protocol::encode_frame({kind, call_.number, piece}), call_.limits()))
            return false;
        rest.remove_prefix(piece.size());
    }
    return true;
}

} // namespace host_runner::wasm::worker

// SPDX-License-Identifier: Apache-2.0
#include "host_runner/instance/control.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <optional>
#include <thread>

#include <poll.h>
#include <sys/socket.h>

#include <fmt/format.h>

#include "control_wire.hpp"
#include "host_runner/base/files.hpp"
#include "host_runner/base/unique_fd.hpp"
#include "host_runner/base/unix_socket.hpp"

namespace host_runner::instance {

namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

/// Once QEMU is gone the runner gives devices and ports back.
constexpr milliseconds after_last_step{10'000};
constexpr milliseconds socket_appears_within{5'000};
constexpr milliseconds look_again_after{10};

int poll_ms(Clock::time_point deadline) {
    const auto left = std::chrono::ceil<milliseconds>(deadline - Clock::now());
    return static_cast<int>(std::clamp<milliseconds::rep>(left.count(), 0, INT_MAX));
}

/// One connection on which a request has been sent and lines come back.
class Conversation {
public:
    static Result<Conversation> begin(const std::string& path, const ControlRequest& request) {
        HR_TRY(const auto address, unix_address(path));
        UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
        if (!fd)
            return fail_errno("Cannot make a socket", errno);
        // A unix socket connects at once or not at all (EAGAIN: the runner's queue is full).
        if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
            return unavailable(path, errno);
        const std::string line = encode_control_request(request);
        // The line is far smaller than a fresh socket's buffer: no partial writes.
        if (::send(fd.get(), line.data(), line.size(), MSG_NOSIGNAL) !=
            static_cast<ssize_t>(line.size()))
            return unavailable(path, errno);
        return Conversation(path, std::move(fd));
    }

    [[nodiscard]] int fd() const noexcept {
        return fd_.get();
    }

    /// Takes in what has arrived. @errors unavailable: the other end closed; corrupt_data
    Result<void> receive() {
        std::array<char, 16384> buffer{};
        const ssize_t count = ::recv(fd_.get(), buffer.data(), buffer.size(), 0);
        if (count < 0 && (errno == EAGAIN || errno == EINTR))
            return {};
        if (count < 0)
            return unavailable(path_, errno);
        if (count == 0)
            return fail(ErrorCode::unavailable,
                        fmt::format("The runner closed {} without an answer", path_));
        bytes_.append(buffer.data(), static_cast<std::size_t>(count));
        if (bytes_.size() > max_control_answer_bytes)
            return fail(ErrorCode::corrupt_data,
                        fmt::format("The answer on {} is larger than {} bytes", path_,
                                    max_control_answer_bytes));
        return {};
    }

    /// The next whole line, without its end.
    std::optional<std::string> next_line() {
        const auto end = bytes_.find('\n');
        if (end == std::string::npos)
            return std::nullopt;
        std::string line = bytes_.substr(0, end);
        bytes_.erase(0, end + 1);
        return line;
    }

private:
    Conversation(std::string path, UniqueFd fd) : path_(std::move(path)), fd_(std::move(fd)) {}

    static tl::unexpected<Error> unavailable(const std::string& path, int saved_errno) {
        auto error = fail_errno(fmt::format("Nobody answers on {}", path), saved_errno);
        error.value().code = ErrorCode::unavailable;
        return error;
    }

    std::string path_;
    UniqueFd fd_;
    std::string bytes_;
};

Result<void> wait_for_free_lock(const std::string& lock_path, Clock::time_point deadline) {
    for (;;) {
        HR_TRY(const bool is_locked, is_file_locked(lock_path));
        if (!is_locked)
            return {};
        if (Clock::now() >= deadline)
            return fail(ErrorCode::timeout,
                        fmt::format("The runner that holds {} still runs", lock_path),
                        "try stop --force");
        std::this_thread::sleep_for(look_again_after);
    }
}

} // namespace

std::vector<Result<LiveStatus>> ask_statuses(const std::vector<std::string>& control_sockets,
                                             milliseconds timeout) {
    const auto deadline = Clock::now() + timeout;
    std::vector<Result<LiveStatus>> answers;
    std::vector<std::optional<Conversation>> open;
    std::size_t open_count = 0;
    for (const auto& path : control_sockets) {
        answers.emplace_back(
            fail(ErrorCode::unavailable, fmt::format("The runner did not answer on {} within {} ms",
                                                     path, timeout.count())));
        open.emplace_back();
        if (auto conversation = Conversation::begin(path, {})) {
            open.back() = std::move(*conversation);
            ++open_count;
        } else {
            answers.back() = tl::unexpected<Error>(std::move(conversation).error());
        }
    }
    const auto settle = [&](std::size_t i, Result<LiveStatus> answer) {
        answers[i] = std::move(answer);
        open[i].reset();
        --open_count;
    };
    std::vector<pollfd> waiting(open.size());
    while (open_count > 0) {
        for (std::size_t i = 0; i < open.size(); ++i)
            waiting[i] = {open[i] ? open[i]->fd() : -1, POLLIN, 0};
        const int ready = ::poll(waiting.data(), waiting.size(), poll_ms(deadline));
        if (ready == 0 || (ready < 0 && errno != EINTR))
            break;
        for (std::size_t i = 0; ready > 0 && i < open.size(); ++i) {
            if (waiting[i].revents == 0)
                continue;
            if (auto received = open[i]->receive(); !received)
                settle(i, tl::unexpected<Error>(std::move(received).error()));
            else if (const auto line = open[i]->next_line())
                settle(i, decode_live_status(*line));
        }
    }
    return answers;
}

Result<LiveStatus> ask_status(const std::string& control_socket, milliseconds timeout) {
    return std::move(ask_statuses({control_socket}, timeout).front());
}

Result<std::string> ask_services(const std::string& control_socket, milliseconds timeout) {
    const auto deadline = Clock::now() + timeout;
    HR_TRY(auto conversation,
           Conversation::begin(control_socket, {ControlRequest::Command::services, {}}));
    for (;;) {
        if (const auto line = conversation.next_line())
            return decode_services_answer(*line);
        pollfd waiting{conversation.fd(), POLLIN, 0};
        if (::poll(&waiting, 1, poll_ms(deadline)) == 0)
            return fail(ErrorCode::unavailable,
                        fmt::format("The runner did not answer on {} within {} ms", control_socket,
                                    timeout.count()));
        HR_CHECK(conversation.receive());
    }
}

Result<void> request_stop(const std::string& control_socket, const std::string& lock_path,
                          const StopRequest& request,
                          const std::function<void(const StopStep&)>& on_step) {
    const ControlRequest line{ControlRequest::Command::stop, request};
    const auto connect_deadline = Clock::now() + socket_appears_within;
    auto conversation = Conversation::begin(control_socket, line);
    while (!conversation) {
        HR_TRY(const bool is_locked, is_file_locked(lock_path));
        if (!is_locked)
            return {};
        if (conversation.error().code != ErrorCode::unavailable || Clock::now() >= connect_deadline)
            return tl::unexpected<Error>(std::move(conversation).error());
        std::this_thread::sleep_for(look_again_after);
        conversation = Conversation::begin(control_socket, line);
    }
    auto deadline = Clock::now() + after_last_step;
    for (;;) {
        pollfd waiting{conversation->fd(), POLLIN, 0};
        const int ready = ::poll(&waiting, 1, poll_ms(deadline));
        if (ready < 0 && errno != EINTR)
            return fail_errno("Cannot wait for the runner", errno);
        // Time is up or the connection has ended: what counts is whether the runner has.
        if (ready == 0)
            return wait_for_free_lock(lock_path, deadline);
        if (ready > 0 && !conversation->receive())
            return wait_for_free_lock(lock_path, deadline);
        while (const auto answer = conversation->next_line()) {
            HR_TRY(const auto step, decode_stop_step(*answer));
            if (on_step)
                on_step(step);
            const milliseconds limit(std::max<std::int64_t>(step.limit_ms, 0));
            deadline = Clock::now() + limit + after_last_step;
            if (step.done)
                return wait_for_free_lock(lock_path, deadline);
        }
    }
}

} // namespace host_runner::instance

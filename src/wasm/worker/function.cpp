// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cerrno>
#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <fmt/format.h>

#include "call.hpp"

namespace host_runner::wasm::worker {

namespace {

using Clock = std::chrono::steady_clock;
using protocol::CallStatus;
using protocol::Frame;
using protocol::FrameKind;
using protocol::InvokeResult;

constexpr std::chrono::seconds default_timeout{30};
/// Room for stdin is given back in pieces of at least this, so that it does not cost a frame each
/// time the guest reads a line.
constexpr std::size_t room_step = protocol::input_room_bytes / 4;

void raise(int event_fd) noexcept {
    const std::uint64_t one = 1;
    static_cast<void>(!::write(event_fd, &one, sizeof one));
}

Result<UniqueFd> make_event() {
    UniqueFd event(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!event)
        return fail_errno("Cannot make an eventfd", errno);
    return event;
}

/// Runs the calls, each in a fresh instance on a thread of its own.
class CallRunner {
public:
    CallRunner(Executor& executor, const Start& start, const Channel& channel, int done_fd)
        : executor_(executor), start_(start), channel_(channel), done_fd_(done_fd) {}
    CallRunner(const CallRunner&) = delete;
    CallRunner& operator=(const CallRunner&) = delete;
    ~CallRunner() {
        {
            const std::lock_guard lock(mutex_);
            stopping_ = true;
        }
        changed_.notify_all();
        for (auto& thread : threads_)
            thread.join();
    }

    /// Loop only.
    void add(std::shared_ptr<Call> call) {
        bool someone_is_free = false;
        {
            const std::lock_guard lock(mutex_);
            waiting_.push_back(std::move(call));
            someone_is_free = idle_ >= waiting_.size();
        }
        changed_.notify_one();
        if (!someone_is_free && threads_.size() < start_.request.calls.calls)
            threads_.emplace_back([this] { work(); });
    }

    /// Takes back a call that still waits for a thread. Loop only. @return whether it did
    [[nodiscard]] bool withdraw(std::uint64_t number) {
        const std::lock_guard lock(mutex_);
        return std::erase_if(waiting_,
                             [number](const auto& call) { return call->number == number; }) > 0;
    }
    /// When the first of the calls that wait is overdue; its number. Loop only.
    [[nodiscard]] std::optional<std::pair<Clock::time_point, std::uint64_t>> first_deadline() {
        const std::lock_guard lock(mutex_);
        const auto first =
            std::min_element(waiting_.begin(), waiting_.end(), [](const auto& a, const auto& b) {
                return a->deadline < b->deadline;
            });
        if (first == waiting_.end())
            return std::nullopt;
        return std::pair((*first)->deadline, (*first)->number);
    }

    /// Numbers of the calls that have ended since. Loop only; the descriptor says when.
    [[nodiscard]] std::vector<std::uint64_t> take_done() {
        std::uint64_t count = 0;
        static_cast<void>(!::read(done_fd_, &count, sizeof count));
        const std::lock_guard lock(mutex_);
        return std::exchange(done_, {});
    }

private:
    void work() {
        for (;;) {
            std::shared_ptr<Call> call;
            {
                std::unique_lock lock(mutex_);
                ++idle_;
                changed_.wait(lock, [this] { return stopping_ || !waiting_.empty(); });
                --idle_;
                if (waiting_.empty())
                    return;
                call = std::move(waiting_.front());
                waiting_.pop_front();
            }
            const auto result = run(*call);
            {
                // Before the caller knows: its next call must not find this one's place taken.
                const std::lock_guard lock(mutex_);
                done_.push_back(call->number);
            }
            raise(done_fd_);
            channel_.send(protocol::encode_frame({FrameKind::result, call->number,
                                                  protocol::encode_invoke_result(result)}),
                          {});
        }
    }

    [[nodiscard]] InvokeResult run(Call& call) const {
        InvokeResult result;
        CallOutput output(channel_, call, start_.request.calls, result);
        const auto say_started = [&] {
            channel_.send(protocol::encode_frame({FrameKind::started, call.number, ""}),
                          call.limits());
        };
        executor_.run(call, output, say_started, result);
        using std::chrono::duration_cast;
        if (result.status == CallStatus::timeout)
            result.message = fmt::format(
                "The call was ended after its time-out of {} ms",
                duration_cast<std::chrono::milliseconds>(call.deadline - call.arrived).count());
        else if (result.status == CallStatus::cancelled)
            result.message = "The call was cancelled";
        result.duration = duration_cast<std::chrono::microseconds>(Clock::now() - call.arrived);
        start_.counters.add(counter_of(result));
        return result;
    }

    Executor& executor_;
    const Start& start_;
    const Channel& channel_;
    int done_fd_;
    std::vector<std::thread> threads_; ///< The loop's.
    std::mutex mutex_;                 // guards what follows
    std::condition_variable changed_;
    std::deque<std::shared_ptr<Call>> waiting_;
    std::vector<std::uint64_t> done_;
    std::size_t idle_ = 0;
    bool stopping_ = false;
};

/// The worker's main thread: takes calls from the channel and feeds their stdin.
class FunctionLoop {
public:
    FunctionLoop(const Start& start, const Channel& channel, CallRunner& runner, int done_fd)
        : start_(start), channel_(channel), runner_(runner), done_fd_(done_fd) {}

    /// Until the agent has gone, or the stop that was asked for is done.
    void run() {
        while (!agent_gone_ && !(stopping_ && calls_.empty() && unsent_.empty())) {
            std::vector<pollfd> waiting{
                {channel_.fd(), static_cast<short>(unsent_.empty() ? POLLIN : POLLIN | POLLOUT), 0},
                {done_fd_, POLLIN, 0},
                {stopping_ ? -1 : start_.stop_fd, POLLIN, 0}};
            for (const auto& [number, call] : calls_)
                if (!call->input.empty())
                    waiting.push_back({call->input_writer.get(), POLLOUT, 0});
            if (::poll(waiting.data(), waiting.size(), wait_ms()) < 0 && errno != EINTR)
                return;
            if (stop_at_ && Clock::now() >= *stop_at_)
                cancel_all();
            for (auto first = runner_.first_deadline(); first && first->first <= Clock::now();
                 first = runner_.first_deadline())
                withdraw(first->second, CallStatus::timeout,
                         "The call's time was over before it began");
            forget_done();
            for (const auto& [number, call] : calls_)
                feed(*call);
            if (waiting[2].revents != 0)
                begin_stop();
            while (!unsent_.empty() && channel_.try_send(unsent_.front()))
                unsent_.pop_front();
            if (waiting[0].revents != 0)
                read_frames();
        }
        cancel_all();
    }

private:
    [[nodiscard]] int wait_ms() const {
        auto until = stop_at_;
        if (const auto first = runner_.first_deadline(); first && (!until || first->first < *until))
            until = first->first;
        if (!until)
            return -1;
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(*until - Clock::now());
        return static_cast<int>(std::clamp<std::int64_t>(left.count(), 0, 60'000));
    }

    /// Ends a call that has no thread yet; one that has ends by itself.
    void withdraw(std::uint64_t number, CallStatus status, const char* why) {
        if (!runner_.withdraw(number))
            return;
        calls_.erase(number);
        refuse(number, status, why);
    }

    void forget_done() {
        for (const auto number : runner_.take_done())
            calls_.erase(number);
    }

    void begin_stop() {
        stopping_ = true;
        stop_at_ = Clock::now() + start_.request.grace;
    }

    void cancel_all() {
        stop_at_.reset();
        for (const auto& [number, call] : calls_)
            raise(call->cancel.get());
        while (const auto first = runner_.first_deadline())
            withdraw(first->second, CallStatus::cancelled, "The call was cancelled");
    }

    void send(FrameKind kind, std::uint64_t call, std::string_view payload) {
        auto frame = protocol::encode_frame({kind, call, payload});
        if (!unsent_.empty() || !channel_.try_send(frame))
            unsent_.push_back(std::move(frame));
    }

    void refuse(std::uint64_t call, CallStatus status, std::string message) {
        InvokeResult result;
        result.status = status;
        result.message = std::move(message);
        start_.counters.add(counter_of(result));
        send(FrameKind::result, call, protocol::encode_invoke_result(result));
    }

    void read_frames() {
        for (;;) {
            const ssize_t count =
                ::recv(channel_.fd(), buffer_.data(), buffer_.size(), MSG_DONTWAIT);
            if (count < 0 && (errno == EAGAIN || errno == EINTR))
                return;
            if (count <= 0) {
                agent_gone_ = true;
                return;
            }
            const auto frame = protocol::decode_frame(
                std::string_view(buffer_.data(), static_cast<std::size_t>(count)));
            if (!frame) {
                say(frame.error().describe());
                agent_gone_ = true; // nothing that follows can be trusted
                return;
            }
            take(*frame);
        }
    }

    void take(const Frame& frame) {
        const auto found = calls_.find(frame.call);
        if (frame.kind == FrameKind::request) {
            if (found == calls_.end())
                accept(frame);
            return;
        }
        if (found == calls_.end())
            return; // it has ended meanwhile
        auto& call = *found->second;
        if (frame.kind == FrameKind::cancel) {
            raise(call.cancel.get());
            withdraw(frame.call, CallStatus::cancelled, "The call was cancelled");
        } else if (frame.kind == FrameKind::output_room) {
            const auto room = protocol::decode_room(frame.payload);
            if (room && call.output_room + *room <= protocol::output_room_bytes) {
                call.output_room += *room;
                raise(call.output_room_came.get());
            }
        } else if (frame.kind == FrameKind::input_end) {
            call.input_ended = true;
            feed(call);
        } else if (frame.kind == FrameKind::input && call.input_writer) {
            call.input += frame.payload;
            if (call.input.size() > 2 * protocol::input_room_bytes) {
                say("A caller sends more input than there is room for");
                raise(call.cancel.get());
                call.input.clear();
                call.input_writer.reset();
                return;
            }
            feed(call);
        }
    }

    void accept(const Frame& frame) {
        start_.counters.add(call_counter);
        if (stopping_) {
            refuse(frame.call, CallStatus::unavailable, "The function is being stopped");
            return;
        }
        const auto most = std::size_t{2} * start_.request.calls.calls;
        if (calls_.size() >= most)
            forget_done();
        if (calls_.size() >= most) {
            refuse(frame.call, CallStatus::overloaded,
                   fmt::format("{} calls run or wait already", calls_.size()));
            return;
        }
        auto request = protocol::decode_invoke_request(frame.payload);
        if (!request) {
            refuse(frame.call, CallStatus::bad_request, request.error().describe());
            return;
        }
        auto call = make_call(frame.call, std::move(*request));
        if (!call) {
            refuse(frame.call, CallStatus::failed, call.error().describe());
            return;
        }
        calls_.emplace(frame.call, *call);
        runner_.add(std::move(*call));
    }

    [[nodiscard]] Result<std::shared_ptr<Call>> make_call(std::uint64_t number,
                                                          protocol::InvokeRequest request) const {
        auto call = std::make_shared<Call>();
        call->number = number;
        call->arrived = Clock::now();
        std::chrono::milliseconds timeout = start_.request.timeout;
        if (timeout.count() == 0)
            timeout = default_timeout;
        if (request.timeout.count() > 0)
            timeout = std::min(timeout, request.timeout);
        call->deadline = call->arrived + timeout;
        call->request = std::move(request);
        HR_TRY(call->cancel, make_event());
        HR_TRY(call->output_room_came, make_event());
        std::array<int, 2> pipe{};
        if (::pipe2(pipe.data(), O_CLOEXEC | O_NONBLOCK) != 0)
            return fail_errno("Cannot make a pipe", errno);
        call->input_reader.reset(pipe[0]);
        call->input_writer.reset(pipe[1]);
        return call;
    }

    /// Moves waiting input into the pipe, as far as there is room.
    void feed(Call& call) {
        while (call.input_writer && !call.input.empty()) {
            const ssize_t count =
                ::write(call.input_writer.get(), call.input.data(), call.input.size());
            if (count < 0 && errno == EINTR)
                continue;
            if (count < 0 && errno == EAGAIN)
                break;
            if (count < 0) { // the guest has closed it, which is its right
                call.input_writer.reset();
                call.input.clear();
                break;
            }
            call.input.erase(0, static_cast<std::size_t>(count));
            call.room_to_tell += static_cast<std::size_t>(count);
        }
        if (call.input_ended && call.input.empty())
            call.input_writer.reset();
        if (!call.input_ended && call.room_to_tell >= room_step)
            send(FrameKind::input_room, call.number,
                 protocol::encode_room(
                     static_cast<std::uint32_t>(std::exchange(call.room_to_tell, 0))));
    }

    const Start& start_;
    const Channel& channel_;
    CallRunner& runner_;
    int done_fd_;
    std::map<std::uint64_t, std::shared_ptr<Call>> calls_;
    std::deque<std::string> unsent_;
    bool agent_gone_ = false;
    bool stopping_ = false;
    std::optional<Clock::time_point> stop_at_;
    std::array<char, protocol::frame_header_bytes + protocol::max_frame_payload_bytes> buffer_{};
};

} // namespace

Result<int> run_function(Start& start) {
    const auto& request = start.request;
    if (request.channel_fd < 0 || request.calls.calls == 0)
        return fail(ErrorCode::invalid_argument, "The worker's request has no calls to take");
    const Channel channel{UniqueFd(request.channel_fd)};
    HR_TRY(const auto executor,
           request.is_component ? make_component_executor(start) : make_module_executor(start));
    HR_TRY(const auto done, make_event());
    HR_CHECK(start.begin({.serves_http = request.is_component,
                          .serves_functions = true,
                          .opens_connections = !request.outgoing.empty()}));
    CallRunner runner(*executor, start, channel, done.get());
    FunctionLoop loop(start, channel, runner, done.get());
    loop.run();
    return 0;
}

} // namespace host_runner::wasm::worker

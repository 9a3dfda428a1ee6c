// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <atomic>
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

#include "host_runner/protocol/invocation.hpp"
#include "host_runner/wasm/wasi/context.hpp"
#include "worlds.hpp"

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

/// @return false: the deadline has passed or the call was cancelled
bool wait_for(int fd, short events, const CallDeadline& deadline) noexcept {
    int wait_ms = -1;
    if (deadline.at) {
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(*deadline.at - Clock::now());
        if (left.count() <= 0)
            return false;
        wait_ms = static_cast<int>(std::min<std::int64_t>(left.count(), 60'000));
    }
    std::array<pollfd, 2> waiting{{{fd, events, 0}, {deadline.cancel_fd, POLLIN, 0}}};
    return ::poll(waiting.data(), waiting.size(), wait_ms) <= 0 || waiting[1].revents == 0;
}

/// The agent's socket. One message is one frame, sent whole or not at all, so that threads share
/// it without a lock.
class Channel {
public:
    explicit Channel(UniqueFd fd) : fd_(std::move(fd)) {}
    [[nodiscard]] int fd() const noexcept {
        return fd_.get();
    }
    /// False: there is no room at the moment.
    [[nodiscard]] bool try_send(const std::string& frame) const noexcept {
        // An agent that has gone is noticed where the channel is read.
        return ::send(fd_.get(), frame.data(), frame.size(), MSG_DONTWAIT | MSG_NOSIGNAL) >= 0 ||
               (errno != EAGAIN && errno != EINTR && errno != ENOBUFS);
    }
    /// Waits for room, but not beyond the deadline. @return whether it was sent
    bool send(const std::string& frame, const CallDeadline& deadline) const noexcept {
        while (!try_send(frame))
            if (!wait_for(fd_.get(), POLLOUT, deadline))
                return false;
        return true;
    }

private:
    UniqueFd fd_;
};

/// What the loop and the thread that runs the call share.
struct Call {
    std::uint64_t number = 0;
    protocol::InvokeRequest request;
    Clock::time_point arrived;
    Clock::time_point deadline;
    UniqueFd cancel;       ///< eventfd
    UniqueFd input_reader; ///< Taken by the guest.
    /// For stdout and stderr; never below zero. The event says that there is more.
    std::atomic<std::size_t> output_room{protocol::output_room_bytes};
    UniqueFd output_room_came;

    // The loop's alone:
    UniqueFd input_writer; ///< Closed after the last byte, or when nobody reads any more.
    std::string input;     ///< For which the pipe has no room yet.
    bool input_ended = false;
    std::size_t room_to_tell = 0;
};

/// Runs the calls, each in a fresh instance on a thread of its own.
class CallRunner {
public:
    CallRunner(const Engine& engine, const Program& program, const Start& start,
               const Channel& channel, int done_fd)
        : engine_(engine), program_(program), start_(start), channel_(channel), done_fd_(done_fd) {}
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
        const CallDeadline deadline{call.deadline, call.cancel.get()};
        const auto conclude = [&](CallStatus status, std::string message) {
            result.status = status;
            result.message = std::move(message);
            result.duration =
                std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - call.arrived);
            return result;
        };
        auto output = std::make_shared<wasi::Output>(output_options(call, deadline, result));
        auto context = make_context(call, output);
        if (!context)
            return conclude(CallStatus::bad_request, context.error().describe());
        (*context)->set_deadline(deadline);
        CallRequest request;
        request.limits.memory_bytes = start_.request.memory_bytes;
        request.deadline = deadline;
        request.state = context->get();
        channel_.send(protocol::encode_frame({FrameKind::started, call.number, ""}), deadline);
        const auto outcome = engine_.call(program_, request);
        if (!outcome)
            return conclude(CallStatus::failed, outcome.error().describe());
        result.memory_peak_bytes = outcome->memory_peak_bytes;
        switch (outcome->end) {
        case CallEnd::returned:
        case CallEnd::exited:
            (*context)->close_files();
            result.code = visible_exit_code((*context)->exit_code().value_or(0));
            return conclude(CallStatus::exit, "");
        case CallEnd::trapped:
            return conclude(CallStatus::trap, describe_trap(*outcome));
        case CallEnd::timed_out:
            return conclude(CallStatus::timeout,
                            fmt::format("The call was ended after its time-out of {} ms",
                                        std::chrono::duration_cast<std::chrono::milliseconds>(
                                            call.deadline - call.arrived)
                                            .count()));
        case CallEnd::cancelled:
            return conclude(CallStatus::cancelled, "The call was cancelled");
        case CallEnd::out_of_memory:
            return conclude(CallStatus::oom, outcome->message);
        case CallEnd::limit:
            return conclude(CallStatus::limit, outcome->message);
        case CallEnd::host_failed:
            break;
        }
        return conclude(CallStatus::failed, outcome->message);
    }

    /// Sends what the module writes, counts it in `result`, and keeps nothing.
    [[nodiscard]] wasi::OutputOptions output_options(Call& call, const CallDeadline& deadline,
                                                     InvokeResult& result) const {
        auto cap = start_.request.calls.output_bytes;
        if (const auto wanted = call.request.output_bytes; wanted && (cap == 0 || *wanted < cap))
            cap = *wanted;
        else if (cap == 0)
            cap = UINT64_MAX;
        wasi::OutputOptions options;
        options.max_output_bytes = 0;
        options.max_error_bytes = 0;
        options.when_full = wasi::WhenFull::drop;
        options.sink = [this, cap, deadline, &call, &result](wasi::OutputStream stream,
                                                             std::string_view bytes) {
            const bool is_output = stream == wasi::OutputStream::standard_output;
            auto& count = is_output ? result.output_bytes : result.error_output_bytes;
            auto rest = bytes.substr(0, cap - std::min(cap, count));
            count += bytes.size();
            result.truncated = result.truncated || rest.size() < bytes.size();
            while (!rest.empty()) {
                const auto room = wait_for_room(call, deadline);
                const auto piece =
                    rest.substr(0, std::min(room, protocol::max_frame_payload_bytes));
                const auto kind = is_output ? FrameKind::output : FrameKind::error_output;
                call.output_room -= piece.size(); // before it can be given back
                if (room == 0 ||
                    !channel_.send(protocol::encode_frame({kind, call.number, piece}), deadline))
                    return; // the call is over
                rest.remove_prefix(piece.size());
            }
        };
        return options;
    }

    /// @return 0: the call is over
    [[nodiscard]] static std::size_t wait_for_room(const Call& call, const CallDeadline& deadline) {
        for (;;) {
            if (const std::size_t room = call.output_room; room > 0)
                return room;
            if (!wait_for(call.output_room_came.get(), POLLIN, deadline))
                return 0;
            std::uint64_t count = 0;
            static_cast<void>(!::read(call.output_room_came.get(), &count, sizeof count));
        }
    }

    [[nodiscard]] Result<std::unique_ptr<wasi::Context>>
    make_context(Call& call, const std::shared_ptr<wasi::Output>& output) const {
        wasi::ContextOptions options;
        options.arguments = start_.request.arguments;
        options.arguments.insert(options.arguments.end(), call.request.arguments.begin(),
                                 call.request.arguments.end());
        for (const auto& [name, value] : call.request.environment)
            options.environment.emplace_back(name, value);
        for (const auto& variable : start_.environment)
            if (!call.request.environment.contains(variable.first))
                options.environment.push_back(variable);
        options.files.emplace_back(wasi::HostStream{std::move(call.input_reader)});
        options.files.emplace_back(wasi::CaptureOut{output, wasi::OutputStream::standard_output});
        options.files.emplace_back(wasi::CaptureOut{output, wasi::OutputStream::standard_error});
        std::vector<std::string> names{"stdin", "stdout", "stderr"};
        if (start_.request.has_files) {
            HR_TRY(auto root, open_root());
            options.files.push_back(std::move(root));
            names.emplace_back("/");
        }
        add_names(options.environment, names);
        return wasi::Context::create(std::move(options));
    }

    const Engine& engine_;
    const Program& program_;
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

    [[nodiscard]] std::uint64_t served() const noexcept {
        return served_;
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
        ++served_;
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
    std::uint64_t served_ = 0;
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
    EngineSettings settings;
    settings.places = request.calls.calls;
    settings.max_memory_bytes = request.memory_bytes;
    HR_TRY(const auto engine, Engine::make(settings));
    HR_TRY(const auto program, load_program(engine, start));
    HR_TRY(const auto done, make_event());
    HR_CHECK(start.begin({.serves_functions = true}));
    CallRunner runner(engine, program, start, channel, done.get());
    FunctionLoop loop(start, channel, runner, done.get());
    loop.run();
    say(fmt::format("Stopped after {} calls", loop.served()));
    return 0;
}

} // namespace host_runner::wasm::worker

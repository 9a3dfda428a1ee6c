// SPDX-License-Identifier: Apache-2.0
#include "host_runner/agent/function_relay.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <deque>
#include <list>
#include <map>
#include <string_view>
#include <utility>

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "host_runner/base/version.hpp"
#include "host_runner/protocol/invocation.hpp"

namespace host_runner::agent {

namespace {

using protocol::CallStatus;
using protocol::Frame;
using protocol::FrameKind;

/// Read from one session before others get their turn.
constexpr std::size_t bytes_per_turn = 256UL * 1024;
/// How long a port's host must be away to be gone.
constexpr std::chrono::milliseconds away_time{100};
/// The same, from one worker.
constexpr int frames_per_turn = 64;
/// What a session's peer may leave unread: the room of all its calls, and as much again for small
/// answers.
constexpr std::size_t max_unread_bytes = 2 * FunctionRelay::max_calls * protocol::output_room_bytes;
/// Frames that a worker has not taken yet: its callers are too fast, and no honest one is.
constexpr std::size_t max_untaken_frames = 4096;

/// Bytes on their way out, as far as the descriptor takes them.
class ByteQueue {
public:
    void push(std::string bytes) {
        size_ += bytes.size();
        pieces_.push_back(std::move(bytes));
    }
    void write_to(int fd) {
        while (!pieces_.empty()) {
            const auto rest = std::string_view(pieces_.front()).substr(begun_);
            const ssize_t count = ::write(fd, rest.data(), rest.size());
            if (count < 0 && errno == EINTR)
                continue;
            if (count <= 0)
                return; // full, or ended: its edge tells
            begun_ += static_cast<std::size_t>(count);
            if (begun_ == pieces_.front().size()) {
                size_ -= begun_;
                pieces_.pop_front();
                begun_ = 0;
            }
        }
    }
    /// Of the pieces; what is written of the first one counts until it is whole.
    [[nodiscard]] std::size_t size() const noexcept {
        return size_;
    }
    /// Keeps a piece that has been begun.
    void drop_rest() {
        while (pieces_.size() > (begun_ > 0 ? 1U : 0U)) {
            size_ -= pieces_.back().size();
            pieces_.pop_back();
        }
    }
    void clear() {
        *this = {};
    }

private:
    std::deque<std::string> pieces_;
    std::size_t begun_ = 0; ///< Bytes of the first piece that are written.
    std::size_t size_ = 0;
};

} // namespace

struct FunctionRelay::Worker {
    std::string function;
    std::string name;
    UniqueFd channel;
    std::deque<std::string> untaken;
    std::uint32_t watched = EPOLLIN;
    struct Caller {
        Session* session = nullptr;
        std::uint64_t call = 0;
    };
    std::map<std::uint64_t, Caller> callers; ///< By the worker's own number of the call.
};

struct FunctionRelay::Session {
    UniqueFd fd;
    bool is_port = false;
    /// Reports the descriptor's edges, and is itself watched for being readable: a port whose host
    /// is not connected reports EPOLLHUP all the time otherwise.
    UniqueFd edges;
    protocol::FrameReader reader;
    ByteQueue out;
    bool is_open = false;    ///< The hello has come.
    bool is_ignored = false; ///< It broke the rules: until its end nothing is read.
    bool turn_posted = false;
    EventLoop::TimerId away_timer = 0;
    struct Call {
        Worker* worker = nullptr;
        std::uint64_t number = 0; ///< The worker's.
    };
    std::map<std::uint64_t, Call> calls;
};

struct FunctionRelay::Impl {
    Impl(EventLoop& event_loop, LogStore& log_store) : loop(event_loop), logs(log_store) {}
    Impl(const Impl&) = delete;
    Impl& operator=(const Impl&) = delete;
    ~Impl() {
        *alive = false;
        for (const auto& session : sessions) {
            loop.unwatch(session.edges.get());
            loop.cancel(session.away_timer);
        }
        for (const auto& worker : workers)
            loop.unwatch(worker->channel.get());
    }

    // ---- workers

    /// The one with the fewest calls.
    [[nodiscard]] Worker* find(std::string_view function) const {
        Worker* best = nullptr;
        for (const auto& worker : workers)
            if (worker->function == function &&
                (best == nullptr || worker->callers.size() < best->callers.size()))
                best = worker.get();
        return best;
    }

    void attach(const std::string& function, const std::string& name, UniqueFd channel) {
        auto worker = std::make_unique<Worker>();
        worker->function = function;
        worker->name = name;
        worker->channel = std::move(channel);
        auto* raw = worker.get();
        const auto watched =
            loop.watch(raw->channel.get(), raw->watched, [this, raw](std::uint32_t events) {
                if ((events & EPOLLOUT) != 0)
                    send_untaken(*raw);
                auto read = Reading::frame;
                for (int i = 0; i < frames_per_turn && read == Reading::frame; ++i)
                    read = read_frame(*raw);
                // Its end is the supervisor's matter, who calls detach().
                if (read == Reading::ended)
                    loop.unwatch(raw->channel.get());
            });
        if (!watched) {
            logs.say(fmt::format("The function {} cannot be called: {}", name,
                                 watched.error().describe()));
            return;
        }
        workers.push_back(std::move(worker));
    }

    void detach(const std::string& name) {
        const auto found = std::find_if(workers.begin(), workers.end(),
                                        [&](const auto& worker) { return worker->name == name; });
        if (found == workers.end())
            return;
        auto& worker = **found;
        while (read_frame(worker) == Reading::frame)
            ;
        loop.unwatch(worker.channel.get());
        // Taken out first: an answer may end its session, and with it other calls of this worker.
        for (const auto& [number, caller] : std::exchange(worker.callers, {})) {
            caller.session->calls.erase(caller.call);
            answer(*caller.session, caller.call, CallStatus::lost,
                   "The function's worker ended during the call");
        }
        workers.erase(found);
    }

    enum class Reading { frame, nothing, ended };

    /// Passes on one thing that the worker says.
    Reading read_frame(Worker& worker) {
        const ssize_t count =
            ::recv(worker.channel.get(), message.data(), message.size(), MSG_DONTWAIT);
        if (count < 0 && (errno == EAGAIN || errno == EINTR))
            return Reading::nothing;
        if (count <= 0)
            return Reading::ended;
        const auto frame = protocol::decode_frame(
            std::string_view(message.data(), static_cast<std::size_t>(count)));
        if (frame) // a worker that says anything else harms its own calls only
            pass_to_caller(worker, *frame);
        return Reading::frame;
    }

    void pass_to_caller(Worker& worker, const Frame& frame) {
        const auto found = worker.callers.find(frame.call);
        if (found == worker.callers.end())
            return; // a call of a session that has ended
        const auto caller = found->second;
        switch (frame.kind) {
        case FrameKind::result:
            worker.callers.erase(found);
            caller.session->calls.erase(caller.call);
            break;
        case FrameKind::started:
        case FrameKind::input_room:
        case FrameKind::output:
        case FrameKind::error_output:
            break;
        default:
            return; // not a worker's to say
        }
        send(*caller.session, {frame.kind, caller.call, frame.payload});
    }

    void watch_again(Worker& worker) {
        const std::uint32_t events = EPOLLIN | (worker.untaken.empty() ? 0U : EPOLLOUT);
        if (std::exchange(worker.watched, events) != events)
            static_cast<void>(loop.rewatch(worker.channel.get(), events)); // it may have ended
    }

    /// @return false: the worker is so far behind that it takes no more
    bool send(Worker& worker, const Frame& frame) {
        if (worker.untaken.size() >= max_untaken_frames)
            return false;
        worker.untaken.push_back(protocol::encode_frame(frame));
        if (worker.untaken.size() == 1)
            send_untaken(worker);
        return true;
    }

    void send_untaken(Worker& worker) {
        auto& frames = worker.untaken;
        while (!frames.empty()) {
            const auto& frame = frames.front();
            if (::send(worker.channel.get(), frame.data(), frame.size(),
                       MSG_DONTWAIT | MSG_NOSIGNAL) < 0 &&
                errno == EAGAIN)
                break;
            frames.pop_front(); // or its worker has ended
        }
        watch_again(worker);
    }

    // ---- sessions

    Result<void> serve(UniqueFd fd, bool is_port) {
        auto& session = sessions.emplace_back();
        session.fd = std::move(fd);
        session.is_port = is_port;
        const auto set_up = [&]() -> Result<void> {
            session.edges.reset(::epoll_create1(EPOLL_CLOEXEC));
            epoll_event event{};
            event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
            if (!session.edges ||
                ::epoll_ctl(session.edges.get(), EPOLL_CTL_ADD, session.fd.get(), &event) != 0)
                return fail_errno("Cannot watch a channel for calls", errno);
            return loop.watch(session.edges.get(), EPOLLIN, [this, &session](std::uint32_t) {
                epoll_event edge{};
                static_cast<void>(::epoll_wait(session.edges.get(), &edge, 1, 0));
                take_turn(session);
            });
        };
        auto done = set_up();
        if (!done)
            sessions.pop_back();
        return done;
    }

    [[nodiscard]] static bool host_is_connected(const Session& session) {
        pollfd state{session.fd.get(), POLLIN, 0};
        return ::poll(&state, 1, 0) >= 0 && (state.revents & POLLHUP) == 0;
    }

    void take_turn(Session& session) {
        if (!session.fd)
            return; // it has ended, and is about to be removed
        session.turn_posted = false;
        if (session.is_port && !host_is_connected(session)) {
            end_if_host_stays_away(session);
            return;
        }
        session.out.write_to(session.fd.get());
        std::size_t read = 0;
        while (read < bytes_per_turn) {
            const ssize_t count = ::read(session.fd.get(), bytes.data(), bytes.size());
            if (count < 0 && errno == EINTR)
                continue;
            if (count < 0 && errno == EAGAIN)
                return;
            if (count <= 0) {
                // Of a port it means nothing as long as its host is connected.
                if (!session.is_port)
                    end(session);
                else if (!host_is_connected(session))
                    end_if_host_stays_away(session);
                return;
            }
            read += static_cast<std::size_t>(count);
            if (!session.is_ignored)
                read_frames(session, {bytes.data(), static_cast<std::size_t>(count)});
        }
        // Its edge is used up, so nobody else would say that there is more.
        if (!std::exchange(session.turn_posted, true))
            loop.post([this, living = std::weak_ptr<bool>(alive), &session] {
                if (!living.expired())
                    take_turn(session);
            });
    }

    /// Data and the news of connections come on queues of their own: a host that has just come and
    /// spoken may still be seen to leave, for the one before it. A new one begins with a hello.
    void end_if_host_stays_away(Session& session) {
        if (session.away_timer != 0)
            return;
        session.away_timer = loop.call_after(away_time, [this, &session] {
            session.away_timer = 0;
            if (!host_is_connected(session))
                end(session);
            else
                take_turn(session);
        });
    }

    void read_frames(Session& session, std::string_view received) {
        session.reader.push(received);
        while (!session.is_ignored) {
            const auto frame = session.reader.next();
            if (!frame) {
                give_up(session, frame.error().describe());
                return;
            }
            if (!*frame)
                return;
            take(session, **frame);
        }
    }

    void take(Session& session, const Frame& frame) {
        if (frame.kind == FrameKind::hello) {
            if (frame.payload.size() != protocol::hello_bytes) {
                give_up(session, "A hello has 16 bytes");
                return;
            }
            // A host that comes back quickly may have been away unnoticed.
            cancel_calls(session);
            session.is_open = true;
            send(session, {FrameKind::ready, 0,
                           std::string(frame.payload) + protocol::encode_session_ready(
                                                            {std::string(host_runner::version)})});
            return;
        }
        if (!session.is_open) {
            give_up(session, "A session begins with a hello");
            return;
        }
        if (frame.kind == FrameKind::request) {
            begin_call(session, frame);
            return;
        }
        if (frame.kind != FrameKind::input && frame.kind != FrameKind::input_end &&
            frame.kind != FrameKind::output_room && frame.kind != FrameKind::cancel) {
            give_up(session,
                    fmt::format("A caller sends no frame '{}'", protocol::to_string(frame.kind)));
            return;
        }
        const auto found = session.calls.find(frame.call);
        if (found == session.calls.end())
            return; // it has ended meanwhile
        const auto& call = found->second;
        if (!send(*call.worker, {frame.kind, call.number, frame.payload}))
            give_up(session, "The session sends faster than its function reads");
    }

    void begin_call(Session& session, const Frame& frame) {
        const auto refuse = [&](CallStatus status, std::string why) {
            answer(session, frame.call, status, std::move(why));
        };
        if (frame.call == 0 || session.calls.contains(frame.call)) {
            give_up(session, "A call needs a number of its own");
            return;
        }
        const auto request = protocol::decode_invoke_request(frame.payload);
        if (!request) {
            refuse(CallStatus::bad_request, request.error().describe());
            return;
        }
        if (std::find(functions.begin(), functions.end(), request->function) == functions.end()) {
            refuse(CallStatus::bad_request,
                   functions.empty() ? "The compose file of this VM names no function"
                                     : fmt::format("There is no function '{}'; there are: {}",
                                                   request->function, fmt::join(functions, ", ")));
            return;
        }
        if (session.calls.size() >= max_calls) {
            refuse(CallStatus::overloaded,
                   fmt::format("The session has {} calls already", session.calls.size()));
            return;
        }
        auto* worker = find(request->function);
        if (worker == nullptr) {
            refuse(CallStatus::unavailable,
                   fmt::format("The function '{}' does not run", request->function));
            return;
        }
        const auto number = ++last_number;
        if (!send(*worker, {FrameKind::request, number, frame.payload})) {
            refuse(CallStatus::overloaded, "The function's worker is behind with its calls");
            return;
        }
        worker->callers[number] = {&session, frame.call};
        session.calls[frame.call] = {worker, number};
    }

    void answer(Session& session, std::uint64_t call, CallStatus status, std::string why) {
        protocol::InvokeResult result;
        result.status = status;
        result.message = std::move(why);
        send(session, {FrameKind::result, call, protocol::encode_invoke_result(result)});
    }

    void send(Session& session, const Frame& frame) {
        if (session.is_ignored)
            return;
        session.out.push(protocol::encode_frame(frame));
        session.out.write_to(session.fd.get());
        if (session.out.size() > max_unread_bytes)
            give_up(session, "The session does not read its answers");
    }

    /// The peer broke the rules: it is told, and not listened to until it comes anew.
    void give_up(Session& session, const std::string& why) {
        logs.say(fmt::format("A session of calls is given up: {}", why));
        session.out.drop_rest();
        end_calls(session);
        send(session, {FrameKind::broken, 0, why});
        session.is_ignored = true;
    }

    void cancel_calls(Session& session) {
        for (const auto& [call, there] : session.calls) {
            there.worker->callers.erase(there.number);
            // One that takes no more has its deadline.
            static_cast<void>(send(*there.worker, {FrameKind::cancel, there.number, ""}));
        }
        session.calls.clear();
    }

    void end_calls(Session& session) {
        cancel_calls(session);
        session.is_open = false;
    }

    void end(Session& session) {
        end_calls(session);
        session.out.clear();
        session.reader = {};
        session.is_ignored = false;
        if (session.is_port)
            return;
        loop.unwatch(session.edges.get());
        session.fd.reset();
        // Later: whoever called us may still look at it.
        session.turn_posted = true;
        loop.post([this, living = std::weak_ptr<bool>(alive), &session] {
            if (!living.expired())
                sessions.remove_if([&](const Session& each) { return &each == &session; });
        });
    }

    EventLoop& loop;
    LogStore& logs;
    std::shared_ptr<bool> alive = std::make_shared<bool>(true);
    std::vector<std::string> functions;
    std::vector<std::unique_ptr<Worker>> workers;
    std::list<Session> sessions;
    std::uint64_t last_number = 0;
    std::array<char, protocol::frame_header_bytes + protocol::max_frame_payload_bytes> message{};
    std::array<char, 64UL * 1024> bytes{};
};

FunctionRelay::FunctionRelay(EventLoop& loop, LogStore& logs)
    : impl_(std::make_unique<Impl>(loop, logs)) {}

FunctionRelay::~FunctionRelay() = default;

void FunctionRelay::set_functions(std::vector<std::string> names) {
    impl_->functions = std::move(names);
}

void FunctionRelay::attach(const std::string& function, const std::string& worker,
                           UniqueFd channel) {
    impl_->attach(function, worker, std::move(channel));
}

void FunctionRelay::detach(const std::string& worker) {
    impl_->detach(worker);
}

Result<void> FunctionRelay::serve_port(const std::string& device) {
    UniqueFd fd(::open(device.c_str(), O_RDWR | O_CLOEXEC | O_NONBLOCK));
    if (!fd)
        return fail_errno(fmt::format("Cannot open {}", device), errno);
    return impl_->serve(std::move(fd), true);
}

Result<void> FunctionRelay::serve_connection(UniqueFd socket) {
    if (::fcntl(socket.get(), F_SETFL, O_NONBLOCK) != 0)
        return fail_errno("Cannot use a connection for calls", errno);
    return impl_->serve(std::move(socket), false);
}

} // namespace host_runner::agent

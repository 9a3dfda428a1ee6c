// SPDX-License-Identifier: Apache-2.0
#include "host_runner/qemu/qmp_client.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <limits>
#include <map>
#include <utility>

#include <sys/socket.h>
#include <sys/un.h>

#include <fmt/format.h>

#include "host_runner/base/log.hpp"
#include "host_runner/base/unique_fd.hpp"
#include "host_runner/qemu/qmp_reader.hpp"
#include "qmp_json.hpp"

namespace host_runner::qemu {

namespace {

constexpr std::size_t max_panic_message = 256;

struct ReasonName {
    ShutdownReason reason;
    std::string_view qmp;
};

constexpr std::array<ReasonName, 6> reason_names{{
    {ShutdownReason::guest_shutdown, "guest-shutdown"},
    {ShutdownReason::guest_reset, "guest-reset"},
    {ShutdownReason::guest_panic, "guest-panic"},
    {ShutdownReason::host_quit, "host-qmp-quit"},
    {ShutdownReason::host_signal, "host-signal"},
    {ShutdownReason::host_error, "host-error"},
}};

Result<UniqueFd> connect_to(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof address.sun_path)
        return fail(ErrorCode::invalid_argument,
                    fmt::format("The socket path {} has {} bytes, a unix socket takes at most {}",
                                path, path.size(), sizeof address.sun_path - 1));
    std::memcpy(static_cast<char*>(address.sun_path), path.c_str(), path.size() + 1);
    UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!fd)
        return fail_errno("Cannot make a unix socket", errno);
    if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0)
        return fd;
    // No socket yet, nobody behind it, or somebody else is being served and the queue is full.
    const int problem = errno;
    if (problem == ENOENT || problem == ECONNREFUSED || problem == EAGAIN)
        return fail(ErrorCode::unavailable,
                    fmt::format("QEMU does not answer on {}: {}", path, std::strerror(problem)));
    return fail_errno(fmt::format("Cannot connect to QEMU's socket {}", path), problem);
}

} // namespace

ShutdownReason shutdown_reason(const std::string& data_json) {
    const auto json = parse_json(data_json, QmpReader::max_depth);
    const auto name = json ? string_member(*json, "reason") : std::string();
    const auto* found = std::find_if(reason_names.begin(), reason_names.end(),
                                     [&](const ReasonName& row) { return row.qmp == name; });
    return found == reason_names.end() ? ShutdownReason::other : found->reason;
}

std::string_view to_string(ShutdownReason reason) noexcept {
    const auto* found = std::find_if(reason_names.begin(), reason_names.end(),
                                     [&](const ReasonName& row) { return row.reason == reason; });
    return found == reason_names.end() ? "other" : found->qmp;
}

std::string panic_message(const std::string& data_json) {
    const auto json = parse_json(data_json, QmpReader::max_depth);
    if (!json || !json->is_object() || !json->contains("info"))
        return {};
    std::string printable;
    for (const char c : string_member((*json)["info"], "message"))
        if (c >= ' ' && c <= '~' && printable.size() < max_panic_message)
            printable += c;
    return printable;
}

Result<std::map<std::uint32_t, pid_t>> vcpu_threads(const std::string& return_json) {
    constexpr std::size_t max_vcpus = 4096;
    const auto wrong = [] {
        return fail(ErrorCode::corrupt_data, "QEMU's account of its vCPUs is none");
    };
    const auto json = parse_json(return_json, QmpReader::max_depth);
    if (!json || !json->is_array() || json->size() > max_vcpus)
        return wrong();
    std::map<std::uint32_t, pid_t> threads;
    for (const auto& cpu : *json) {
        if (!cpu.is_object())
            return wrong();
        const auto index = cpu.find("cpu-index");
        const auto thread = cpu.find("thread-id");
        if (index == cpu.end() || thread == cpu.end() || !index->is_number_unsigned() ||
            !thread->is_number_unsigned() || index->get<std::uint64_t>() >= max_vcpus ||
            thread->get<std::uint64_t>() == 0 ||
            thread->get<std::uint64_t>() > std::numeric_limits<pid_t>::max())
            return wrong();
        threads.emplace(index->get<std::uint32_t>(), thread->get<pid_t>());
    }
    return threads;
}

struct QmpClient::Impl : std::enable_shared_from_this<Impl> {
    struct Pending {
        std::string command;
        EventLoop::TimerId timer = 0;
        Reply reply;
    };

    Impl(EventLoop& event_loop, UniqueFd socket, EventHandler event_handler,
         ClosedHandler closed_handler)
        : loop(event_loop), fd(std::move(socket)), on_event(std::move(event_handler)),
          on_closed(std::move(closed_handler)) {}

    /// A callback for the loop that does nothing once the client is gone, and keeps us alive while
    /// it runs.
    template <class Function>
    auto guarded(Function function) {
        return [weak = weak_from_this(), function = std::move(function)](auto... arguments) {
            if (const auto self = weak.lock(); self && self->fd)
                function(*self, arguments...);
        };
    }

    /// For what is found out inside a call of the user: callbacks never run there.
    void close_soon(Error error) {
        loop.call_after(std::chrono::milliseconds(0),
                        guarded([error = std::move(error)](Impl& self) { self.close(error); }));
    }

    // --- commands -------------------------------------------------------------------------------

    void execute(const std::string& command, const std::string& arguments_json,
                 std::chrono::milliseconds timeout, Reply reply) {
        const auto id = next_id++;
        Json message = {{"execute", command}, {"id", id}};
        if (!arguments_json.empty()) {
            auto arguments = parse_json(arguments_json, QmpReader::max_depth);
            if (!arguments || !arguments->is_object())
                return answer_soon(std::move(reply),
                                   Error{ErrorCode::invalid_argument,
                                         fmt::format("The arguments of the QMP command {} are no "
                                                     "JSON object",
                                                     command),
                                         {},
                                         0});
            message["arguments"] = std::move(*arguments);
        }
        if (!fd)
            return answer_soon(std::move(reply), closed_error());
        const auto timer =
            loop.call_after(timeout, guarded([id](Impl& self) { self.on_timeout(id); }));
        pending.emplace(id, Pending{command, timer, std::move(reply)});
        (negotiated ? outgoing : waiting) += dump(message) + "\n";
        flush();
    }

    /// A reply that does not depend on the connection.
    void answer_soon(Reply reply, Error error) {
        loop.call_after(
            std::chrono::milliseconds(0),
            [weak = weak_from_this(), reply = std::move(reply), error = std::move(error)] {
                if (const auto self = weak.lock(); self && !self->destroyed)
                    reply(tl::unexpected(error));
            });
    }

    void on_timeout(std::uint64_t id) {
        const auto command = pending.at(id).command;
        answer(id, fail(ErrorCode::timeout,
                        fmt::format("QEMU did not answer the QMP command {} in time", command)));
    }

    void answer(std::uint64_t id, Result<std::string> result) {
        auto found = pending.extract(id);
        if (found.empty())
            return; // timed out before
        loop.cancel(found.mapped().timer);
        found.mapped().reply(std::move(result));
    }

    // --- the socket -----------------------------------------------------------------------------

    void on_ready(std::uint32_t events) {
        if ((events & EPOLLOUT) != 0)
            flush();
        if ((events & ~static_cast<std::uint32_t>(EPOLLOUT)) != 0)
            receive();
    }

    void flush() {
        while (!outgoing.empty()) {
            const auto count = ::send(fd.get(), outgoing.data(), outgoing.size(), MSG_NOSIGNAL);
            if (count >= 0)
                outgoing.erase(0, static_cast<std::size_t>(count));
            else if (errno == EAGAIN)
                break;
            else if (errno != EINTR)
                outgoing.clear(); // QEMU is gone; its last events and the end are still to be read
        }
        const auto wanted =
            static_cast<std::uint32_t>(outgoing.empty() ? EPOLLIN : EPOLLIN | EPOLLOUT);
        if (auto watched = loop.rewatch(fd.get(), wanted); !watched)
            close_soon(watched.error());
    }

    void receive() {
        const auto count = ::recv(fd.get(), buffer.data(), buffer.size(), 0);
        if (count < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (count <= 0)
            return close(closed_error());
        const auto messages =
            reader.feed(std::string_view(buffer.data(), static_cast<std::size_t>(count)));
        if (!messages)
            return close(messages.error());
        for (const auto& message : *messages) {
            if (!fd)
                return; // closed by a callback
            handle(message);
        }
    }

    void handle(const QmpMessage& message) {
        switch (message.kind) {
        case QmpMessage::Kind::greeting:
            return negotiate();
        case QmpMessage::Kind::event:
            log::trace("QMP event {} {}", message.name, message.json);
            return on_event({message.name, message.json});
        case QmpMessage::Kind::reply:
            if (message.id)
                answer(*message.id, message.json);
            return;
        case QmpMessage::Kind::error: {
            const auto found = pending.find(message.id.value_or(0));
            if (found != pending.end())
                answer(found->first,
                       fail(ErrorCode::internal, fmt::format("QEMU refused the QMP command {}: {}",
                                                             found->second.command, message.name)));
            else if (message.id == negotiation_id)
                close(Error{ErrorCode::internal,
                            fmt::format("QEMU refused to speak QMP: {}", message.name),
                            {},
                            0});
            return;
        }
        }
    }

    /// QEMU works through the commands in their order, so those that wait need no further delay.
    void negotiate() {
        if (std::exchange(negotiated, true))
            return;
        outgoing = dump({{"execute", "qmp_capabilities"}, {"id", negotiation_id}}) + "\n" +
                   std::exchange(waiting, {});
        flush();
    }

    void release() noexcept {
        loop.unwatch(fd.get());
        fd.reset();
        for (const auto& [id, command] : pending)
            loop.cancel(command.timer);
    }

    void close(const Error& error) {
        release();
        log::debug("QMP connection closed: {}", error.describe());
        for (auto& [id, command] : std::exchange(pending, {})) {
            if (destroyed)
                return;
            command.reply(tl::unexpected(error));
        }
        if (!destroyed)
            on_closed();
    }

    static Error closed_error() {
        return {ErrorCode::unavailable, "QEMU closed its QMP connection", {}, 0};
    }

    static constexpr std::uint64_t negotiation_id = 1;

    EventLoop& loop;
    UniqueFd fd; // none: closed
    EventHandler on_event;
    ClosedHandler on_closed;
    bool destroyed = false; // the client is; we may still be in one of its callbacks
    bool negotiated = false;
    std::uint64_t next_id = negotiation_id + 1;
    std::map<std::uint64_t, Pending> pending;
    std::string waiting;  // commands before the greeting
    std::string outgoing; // bytes that the socket did not take yet
    QmpReader reader;
    std::array<char, 65536> buffer{};
};

Result<std::unique_ptr<QmpClient>> QmpClient::connect(EventLoop& loop,
                                                      const std::string& socket_path,
                                                      EventHandler on_event,
                                                      ClosedHandler on_closed) {
    HR_TRY(auto fd, connect_to(socket_path));
    const int number = fd.get();
    auto impl =
        std::make_shared<Impl>(loop, std::move(fd), std::move(on_event), std::move(on_closed));
    HR_CHECK(loop.watch(number, EPOLLIN, impl->guarded([](Impl& self, std::uint32_t events) {
        self.on_ready(events);
    })));
    return std::unique_ptr<QmpClient>(new QmpClient(std::move(impl)));
}

QmpClient::QmpClient(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}

QmpClient::~QmpClient() {
    impl_->destroyed = true;
    impl_->release();
    impl_->pending.clear();
}

void QmpClient::execute(const std::string& command, const std::string& arguments_json,
                        std::chrono::milliseconds timeout, Reply reply) {
    impl_->execute(command, arguments_json, timeout, std::move(reply));
}

} // namespace host_runner::qemu

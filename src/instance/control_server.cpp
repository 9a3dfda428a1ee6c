// SPDX-License-Identifier: Apache-2.0
#include "host_runner/instance/control_server.hpp"

#include <array>
#include <cerrno>
#include <map>
#include <string_view>
#include <utility>

#include <sys/socket.h>
#include <unistd.h>

#include <fmt/format.h>

#include "control_wire.hpp"
#include "host_runner/base/files.hpp"
#include "host_runner/base/log.hpp"
#include "host_runner/base/unique_fd.hpp"
#include "host_runner/base/unix_socket.hpp"

namespace host_runner::instance {

namespace {

/// Without descriptors accept() fails at once and for as long as that lasts.
constexpr std::chrono::milliseconds accept_pause{1'000};

} // namespace

struct ControlServer::Impl : std::enable_shared_from_this<ControlServer::Impl> {
    enum class Phase { asking, following, closing };
    struct Client {
        UniqueFd fd;
        std::string in;
        std::string out;
        EventLoop::TimerId deadline = 0;
        Phase phase = Phase::asking;
    };
    using ClientPtr = std::shared_ptr<Client>;

    Impl(EventLoop& the_loop, std::string the_path, Callbacks the_callbacks, Limits the_limits)
        : loop(the_loop), path(std::move(the_path)), callbacks(std::move(the_callbacks)),
          limits(the_limits) {}

    void accept_clients() {
        while (clients.size() < limits.max_clients) {
            UniqueFd fd(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
            if (!fd && (errno == ECONNABORTED || errno == EINTR))
                continue;
            if (!fd && errno == EAGAIN)
                return;
            if (!fd) {
                log::warn("Cannot accept on {}: {}", path,
                          fail_errno("accept", errno).value().message);
                pause_accepting();
                accept_timer = loop.call_after(accept_pause, [this] { resume_accepting(); });
                return;
            }
            add_client(std::move(fd));
        }
        pause_accepting();
    }

    void pause_accepting() {
        if (auto changed = loop.rewatch(listener.get(), 0); !changed)
            log::warn("{}", changed.error().describe());
    }

    void resume_accepting() {
        if (auto changed = loop.rewatch(listener.get(), EPOLLIN); !changed)
            log::warn("{}", changed.error().describe());
    }

    void add_client(UniqueFd fd) {
        auto client = std::make_shared<Client>();
        client->fd = std::move(fd);
        const int number = client->fd.get();
        const auto watched = loop.watch(
            number, EPOLLIN, [this, client](std::uint32_t events) { on_ready(client, events); });
        if (!watched) {
            log::warn("{}", watched.error().describe());
            return;
        }
        clients.emplace(number, client);
        client->deadline =
            loop.call_after(limits.request_deadline, [this, client] { drop(client); });

        ucred peer{};
        socklen_t size = sizeof peer;
        if (::getsockopt(number, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0 ||
            (peer.uid != ::geteuid() && peer.uid != 0))
            finish(client, encode_control_error("only the user who started the VM may ask"));
    }

    void on_ready(const ClientPtr& client, std::uint32_t events) {
        if ((events & EPOLLOUT) != 0)
            flush(client);
        if (!client->fd || (events & ~static_cast<std::uint32_t>(EPOLLOUT)) == 0)
            return;
        std::array<char, max_control_request_bytes> buffer{};
        const ssize_t count = ::recv(client->fd.get(), buffer.data(), buffer.size(), 0);
        if (count < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        // After its request a client has nothing more to say.
        if (count <= 0 || client->phase != Phase::asking) {
            drop(client);
            return;
        }
        client->in.append(buffer.data(), static_cast<std::size_t>(count));
        const auto end = client->in.find('\n');
        if (end != std::string::npos)
            answer(client, client->in.substr(0, end));
        else if (client->in.size() >= max_control_request_bytes)
            finish(client, encode_control_error("the request is too long"));
    }

    /// `act`, as long as the server and the client are there.
    template <typename Act>
    auto later(const ClientPtr& client, Act act) {
        return [server = weak_from_this(), weak = std::weak_ptr<Client>(client),
                act](const auto& news) {
            const auto self = server.lock();
            const auto asker = weak.lock();
            if (self && asker && asker->fd)
                act(*self, asker, news);
        };
    }

    void answer(const ClientPtr& client, const std::string& line) {
        const auto request = decode_control_request(line);
        if (!request) {
            finish(client, encode_control_error(request.error().describe()));
            return;
        }
        if (request->command == ControlRequest::Command::status) {
            finish(client, encode_live_status(callbacks.status()));
            return;
        }
        loop.cancel(client->deadline);
        client->phase = Phase::following;
        if (request->command == ControlRequest::Command::services) {
            client->deadline =
                loop.call_after(limits.services_deadline, [this, client] { drop(client); });
            callbacks.services(later(client, [](Impl& self, const ClientPtr& asker,
                                                const Result<std::string>& services) {
                self.finish(asker, services ? encode_services_answer(*services)
                                            : encode_control_error(services.error().describe()));
            }));
            return;
        }
        callbacks.stop(request->stop, later(client, [](Impl& self, const ClientPtr& follower,
                                                       const StopStep& step) {
                           if (step.done)
                               self.finish(follower, encode_stop_step(step));
                           else
                               self.send(follower, encode_stop_step(step));
                       }));
    }

    /// Sends the last line; the client has one more deadline's time to read it.
    void finish(const ClientPtr& client, std::string_view line) {
        loop.cancel(client->deadline);
        client->deadline =
            loop.call_after(limits.request_deadline, [this, client] { drop(client); });
        client->phase = Phase::closing;
        send(client, line);
    }

    void send(const ClientPtr& client, std::string_view line) {
        client->out += line;
        if (client->out.size() > max_control_answer_bytes)
            drop(client);
        else
            flush(client);
    }

    void flush(const ClientPtr& client) {
        while (!client->out.empty()) {
            const ssize_t count =
                ::send(client->fd.get(), client->out.data(), client->out.size(), MSG_NOSIGNAL);
            if (count < 0 && errno == EINTR)
                continue;
            if (count < 0 && errno == EAGAIN) {
                if (!loop.rewatch(client->fd.get(), EPOLLIN | EPOLLOUT))
                    drop(client);
                return;
            }
            if (count < 0) {
                drop(client);
                return;
            }
            client->out.erase(0, static_cast<std::size_t>(count));
        }
        if (client->phase == Phase::closing || !loop.rewatch(client->fd.get(), EPOLLIN))
            drop(client);
    }

    // By value: the caller's pointer may be inside the callback that this removes.
    void drop(ClientPtr client) { // NOLINT(performance-unnecessary-value-param)
        if (!client->fd)
            return;
        loop.cancel(client->deadline);
        loop.unwatch(client->fd.get());
        clients.erase(client->fd.get());
        client->fd.reset();
        resume_accepting();
    }

    void close() {
        while (!clients.empty())
            drop(clients.begin()->second);
        loop.cancel(accept_timer);
        loop.unwatch(listener.get());
        ::unlink(path.c_str());
    }

    EventLoop& loop;
    std::string path;
    Callbacks callbacks;
    Limits limits;
    UniqueFd listener;
    EventLoop::TimerId accept_timer = 0;
    std::map<int, ClientPtr> clients;
};

Result<std::unique_ptr<ControlServer>> ControlServer::listen(EventLoop& loop,
                                                             const std::string& path,
                                                             Callbacks callbacks, Limits limits) {
    auto impl = std::make_shared<Impl>(loop, path, std::move(callbacks), limits);
    HR_TRY(impl->listener, listen_unix(path));
    auto* raw = impl.get();
    HR_CHECK(
        loop.watch(impl->listener.get(), EPOLLIN, [raw](std::uint32_t) { raw->accept_clients(); }));
    return std::unique_ptr<ControlServer>(new ControlServer(std::move(impl)));
}

ControlServer::ControlServer(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}

ControlServer::~ControlServer() {
    impl_->close();
}

} // namespace host_runner::instance

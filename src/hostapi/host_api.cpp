// SPDX-License-Identifier: Apache-2.0
#include "host_runner/hostapi/host_api.hpp"

#include <array>
#include <atomic>
#include <cerrno>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

#include <fmt/format.h>

#include "host_runner/base/log.hpp"
#include "host_runner/crypto/digest.hpp"
#include "host_runner/hostapi/event_gate.hpp"
#include "host_runner/net/http_client.hpp"
#include "host_runner/net/http_server.hpp"

namespace host_runner::hostapi {

namespace {

using namespace std::chrono_literals;

/// dstack's own port; one listener per runner, so the next free ones follow it.
constexpr std::uint32_t first_vsock_port = 10000;
constexpr std::uint32_t last_vsock_port = 10999;
/// QEMU makes its sockets some 20 ms after its start; after a restart it makes them again.
constexpr auto pause = 20ms;
/// One connection may wait for a key while the other goes on: nothing a guest does holds up its
/// own events.
constexpr unsigned socket_threads = 2;

net::HttpLimits limits(bool own_stream) {
    net::HttpLimits limits;
    limits.max_body_bytes = protocol::max_quote_hex_bytes + 4096;
    // A stream of its own may be silent for ever; of the connections there are only two.
    limits.idle_timeout = own_stream ? 0ms : 1000ms;
    return limits;
}

net::HttpResponse error_response(int status, std::string_view message) {
    return {status, "application/json", protocol::encode_error(message)};
}

} // namespace

struct HostApi::Impl {
    Impl(EventLoop& event_loop, protocol::HostInfo host_info, Callbacks the_callbacks,
         std::string path_prefix, bool own_stream)
        : loop(event_loop), info(std::move(host_info)), callbacks(std::move(the_callbacks)),
          prefix(std::move(path_prefix)),
          server([this](const net::HttpRequest& request) { return answer(request); },
                 limits(own_stream)),
          wakeup(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
        HR_ASSERT(wakeup);
    }
    Impl(const Impl&) = delete;
    Impl& operator=(const Impl&) = delete;
    ~Impl() {
        *alive = false;
        stopping = true;
        const std::uint64_t one = 1;
        static_cast<void>(!::write(wakeup.get(), &one, sizeof one));
        server.interrupt();
        for (auto& thread : threads)
            thread.join();
    }

    EventLoop& loop;
    protocol::HostInfo info;
    Callbacks callbacks;
    std::string prefix; ///< Of the path, ends with "/api/".
    std::string url;
    std::uint16_t loopback_port = 0;
    net::HttpServer server;
    UniqueFd listener;
    UniqueFd wakeup; ///< Never read: every wait sees it.
    std::atomic<bool> stopping{false};
    std::atomic<bool> told_of_strangers{false};
    std::mutex key_mutex;  ///< Held while a key is being made.
    std::mutex gate_mutex; ///< Guards gate.
    EventGate gate;
    /// Read and written on the loop's thread only: what was posted before the end is not run after.
    std::shared_ptr<bool> alive = std::make_shared<bool>(true);
    std::vector<std::thread> threads;

    // --- requests ------------------------------------------------------------------------------

    net::HttpResponse answer(const net::HttpRequest& request) {
        if (request.path.rfind(prefix, 0) != 0)
            return error_response(404, "No such path");
        if (request.method != "POST")
            return error_response(405, "Use POST");
        const auto method = std::string_view(request.path).substr(prefix.size());
        if (method == "Info")
            return {200, "application/json", protocol::encode_host_info(info)};
        if (method == "Notify")
            return notify(request.body);
        if (method == "GetSealingKey")
            return get_sealing_key(request.body);
        return error_response(404, "No such method: use Info, Notify or GetSealingKey");
    }

    net::HttpResponse notify(const std::string& body) {
        auto event = protocol::decode_event(body);
        if (!event)
            return error_response(400, event.error().message);
        // Old dstack guests fail on an empty body, so a void answer is `null`.
        net::HttpResponse done{200, "application/json", "null"};
        std::optional<std::uint64_t> dropped;
        {
            const std::lock_guard lock(gate_mutex);
            dropped = gate.pass(EventGate::Clock::now());
        }
        if (!dropped)
            return done;
        if (*dropped > 0)
            deliver({"events.dropped", std::to_string(*dropped)});
        if (event->payload.size() <= protocol::max_event_payload_bytes)
            deliver(std::move(*event));
        else
            deliver({"events.dropped", fmt::format("'{}' has more than {} bytes", event->name,
                                                   protocol::max_event_payload_bytes)});
        return done;
    }

    void deliver(protocol::Event event) {
        loop.post([this, still_here = alive, event = std::move(event)] {
            if (*still_here)
                callbacks.on_event(event);
        });
    }

    net::HttpResponse get_sealing_key(const std::string& body) {
        const auto quote = protocol::decode_sealing_key_request(body);
        if (!quote)
            return error_response(400, quote.error().message);
        const std::unique_lock lock(key_mutex, std::try_to_lock);
        if (!lock)
            return error_response(503, "Another key request of this guest is being answered");
        const auto key = callbacks.get_sealing_key(*quote);
        if (!key)
            return error_response(400, key.error().describe());
        return {200, "application/json", *key};
    }

    // --- streams -------------------------------------------------------------------------------

    /// Waits for `fd` (-1: nothing) or the end of all. False at the end.
    bool wait_for(int fd, int timeout_ms) {
        std::array<pollfd, 2> waiting{{{wakeup.get(), POLLIN, 0}, {fd, POLLIN, 0}}};
        while (::poll(waiting.data(), waiting.size(), timeout_ms) < 0 && errno == EINTR) {
        }
        return !stopping;
    }

    void serve_port(const std::string& socket_path) {
        const auto connect = net::connect_unix(socket_path);
        do {
            if (const auto stream = connect())
                server.serve(stream->get());
        } while (wait_for(-1, static_cast<int>(pause.count())));
    }

    void accept_peers(const PeerCheck& check) {
        while (wait_for(listener.get(), -1)) {
            sockaddr_storage peer{};
            socklen_t size = sizeof peer;
            const UniqueFd connection(::accept4(listener.get(), reinterpret_cast<sockaddr*>(&peer),
                                                &size, SOCK_CLOEXEC | SOCK_NONBLOCK));
            if (!connection) { // the other thread was quicker, or the peer has gone
                if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
                    wait_for(-1, static_cast<int>(pause.count()));
                continue;
            }
            if (check(peer))
                server.serve(connection.get());
            else if (!told_of_strangers.exchange(true)) // once: a stranger could fill the log
                log::warn("Host API: a peer that is not this guest was turned away; others like it "
                          "are turned away without a word");
        }
    }
};

bool is_vsock_peer(const sockaddr_storage& peer, std::uint32_t cid) noexcept {
    return peer.ss_family == AF_VSOCK && reinterpret_cast<const sockaddr_vm&>(peer).svm_cid == cid;
}

namespace {

Result<UniqueFd> listen_on(int family, const sockaddr* address, socklen_t size) {
    UniqueFd listener(::socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!listener)
        return fail_errno("Cannot make the host API's socket", errno);
    if (::bind(listener.get(), address, size) != 0 || ::listen(listener.get(), 8) != 0)
        return fail_errno("Cannot listen for the host API", errno);
    return listener;
}

} // namespace

HostApi::HostApi(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
HostApi::~HostApi() = default;

std::uint16_t HostApi::loopback_port() const noexcept {
    return impl_->loopback_port;
}

const std::string& HostApi::url() const noexcept {
    return impl_->url;
}

Result<std::unique_ptr<HostApi>>
HostApi::serve_virtio_serial(EventLoop& loop, std::string socket_path, protocol::HostInfo info,
                             Callbacks callbacks, std::string key_socket_path) {
    auto impl = std::make_unique<Impl>(loop, std::move(info), std::move(callbacks),
                                       std::string(protocol::api_prefix), true);
    for (auto& path : {std::move(socket_path), std::move(key_socket_path)})
        if (!path.empty())
            impl->threads.emplace_back([raw = impl.get(), path] { raw->serve_port(path); });
    return std::unique_ptr<HostApi>(new HostApi(std::move(impl)));
}

std::unique_ptr<HostApi> HostApi::serve_listener(EventLoop& loop, UniqueFd listener,
                                                 const PeerCheck& check, std::string prefix,
                                                 std::string url, protocol::HostInfo info,
                                                 Callbacks callbacks) {
    auto impl = std::make_unique<Impl>(loop, std::move(info), std::move(callbacks),
                                       std::move(prefix), false);
    impl->url = std::move(url);
    // Both threads wake up for one peer, and the second must not stay in accept().
    ::fcntl(listener.get(), F_SETFL, ::fcntl(listener.get(), F_GETFL) | O_NONBLOCK);
    impl->listener = std::move(listener);
    for (unsigned i = 0; i < socket_threads; ++i)
        impl->threads.emplace_back([raw = impl.get(), check] { raw->accept_peers(check); });
    return std::unique_ptr<HostApi>(new HostApi(std::move(impl)));
}

Result<std::unique_ptr<HostApi>> HostApi::serve_vsock(EventLoop& loop, std::uint32_t guest_cid,
                                                      protocol::HostInfo info,
                                                      Callbacks callbacks) {
    sockaddr_vm address{};
    address.svm_family = AF_VSOCK;
    address.svm_cid = VMADDR_CID_ANY;
    for (std::uint32_t port = first_vsock_port; port <= last_vsock_port; ++port) {
        address.svm_port = port;
        auto listener =
            listen_on(AF_VSOCK, reinterpret_cast<const sockaddr*>(&address), sizeof address);
        if (listener)
            return serve_listener(
                loop, std::move(*listener),
                [guest_cid](const auto& peer) { return is_vsock_peer(peer, guest_cid); },
                std::string(protocol::api_prefix), fmt::format("vsock://2:{}/api", port),
                std::move(info), std::move(callbacks));
        if (listener.error().sys_errno != EADDRINUSE)
            return fail(ErrorCode::unsupported, listener.error().message,
                        "load the module: modprobe vhost_vsock");
    }
    return fail(
        ErrorCode::resource_exhausted,
        fmt::format("All vsock ports from {} to {} are taken", first_vsock_port, last_vsock_port));
}

Result<std::unique_ptr<HostApi>> HostApi::serve_loopback(EventLoop& loop, protocol::HostInfo info,
                                                         Callbacks callbacks) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    HR_TRY(auto listener,
           listen_on(AF_INET, reinterpret_cast<const sockaddr*>(&address), sizeof address));
    socklen_t size = sizeof address;
    if (::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &size) != 0)
        return fail_errno("Cannot ask for the host API's port", errno);
    const auto secret = crypto::random_hex(16);
    // The guest's user network shows the host's loopback, or this port of it, as 10.0.2.2.
    auto api = serve_listener(
        loop, std::move(listener), [](const auto&) { return true; },
        fmt::format("/{}/api/", secret),
        fmt::format("http://10.0.2.2:{}/{}/api", ntohs(address.sin_port), secret), std::move(info),
        std::move(callbacks));
    api->impl_->loopback_port = ntohs(address.sin_port);
    return api;
}

} // namespace host_runner::hostapi

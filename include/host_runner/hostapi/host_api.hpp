// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The thread that answers what a guest may ask its runner: Info, Notify, GetSealingKey.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include <sys/socket.h>

#include "host_runner/base/error.hpp"
#include "host_runner/base/event_loop.hpp"
#include "host_runner/base/unique_fd.hpp"
#include "host_runner/protocol/host_api.hpp"

namespace host_runner::hostapi {

struct Callbacks {
    /// On the loop's thread, in order, at most `max_event_payload_bytes` each and rate-limited: a
    /// guest that floods gets its surplus dropped (one event "events.dropped" with the count says
    /// so).
    std::function<void(const protocol::Event&)> on_event;
    /// On the host API's own key thread; may take up to 25 s. The answer's JSON, or an error whose
    /// describe() goes to the guest.
    std::function<Result<std::string>(const std::string& quote_hex)> get_sealing_key;
};

/// Whether a connection may ask. Called on the host API's threads.
using PeerCheck = std::function<bool(const sockaddr_storage& peer)>;

/// True for a vsock peer with that CID. The kernel sets it; a guest cannot forge it (vsock(7)).
[[nodiscard]] bool is_vsock_peer(const sockaddr_storage& peer, std::uint32_t cid) noexcept;

/// Serves until destroyed; the destructor interrupts and joins its threads, of which there are at
/// most two: while one waits for a key, the other answers. It waits for a running get_sealing_key.
class HostApi {
public:
    /// Our image: connects to the unix sockets of virtio-serial port 1 and, where it is given, the
    /// one for keys (port 4) as soon as QEMU has made them, and again whenever QEMU has closed
    /// them. A guest that asks for its key on port 4 is served on port 1 meanwhile.
    [[nodiscard]] static Result<std::unique_ptr<HostApi>>
    serve_virtio_serial(EventLoop& loop, std::string socket_path, protocol::HostInfo info,
                        Callbacks callbacks, std::string key_socket_path = {});
    /// dstack images: listens on vsock (any CID, a free port from 10000 up) and drops every peer
    /// whose CID is not the guest's.
    /// @errors unsupported: no vsock on this host; resource_exhausted: no free port
    [[nodiscard]] static Result<std::unique_ptr<HostApi>> serve_vsock(EventLoop& loop,
                                                                      std::uint32_t guest_cid,
                                                                      protocol::HostInfo info,
                                                                      Callbacks callbacks);
    /// dstack images on a host without vsock: 127.0.0.1, a free port, and a path prefix that nobody
    /// can guess.
    [[nodiscard]] static Result<std::unique_ptr<HostApi>>
    serve_loopback(EventLoop& loop, protocol::HostInfo info, Callbacks callbacks);
    /// What the last two do with their listening sockets: two connections are served at once, peers
    /// that fail `check` are closed. Paths begin with `prefix`, which ends with "/api/"; url() is
    /// `url`.
    [[nodiscard]] static std::unique_ptr<HostApi>
    serve_listener(EventLoop& loop, UniqueFd listener, const PeerCheck& check, std::string prefix,
                   std::string url, protocol::HostInfo info, Callbacks callbacks);
    HostApi(const HostApi&) = delete;
    HostApi& operator=(const HostApi&) = delete;
    ~HostApi();

    /// What the guest's `host_api_url` must say, e.g. "vsock://2:10003/api" or
    /// "http://10.0.2.2:40123/5f..e1/api"; empty for virtio-serial.
    [[nodiscard]] const std::string& url() const noexcept;
    /// The port of 127.0.0.1 that serve_loopback() listens on; else 0.
    [[nodiscard]] std::uint16_t loopback_port() const noexcept;

private:
    struct Impl;
    explicit HostApi(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

} // namespace host_runner::hostapi

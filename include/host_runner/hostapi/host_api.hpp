// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The thread that answers what a guest may ask its runner: Info, Notify, GetSealingKey.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "host_runner/base/error.hpp"
#include "host_runner/base/event_loop.hpp"
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

/// Serves until destroyed; the destructor interrupts and joins its threads (two: one per stream
/// and one for GetSealingKey, so that a slow key never holds up Notify).
class HostApi {
public:
    /// Our image: connects to the unix socket of virtio-serial port 1 once QEMU made it (retrying
    /// for `connect_timeout`), and serves on it; connects again when QEMU closes it.
    [[nodiscard]] static Result<std::unique_ptr<HostApi>>
    serve_virtio_serial(EventLoop& loop, std::string socket_path, protocol::HostInfo info,
                        Callbacks callbacks);
    /// dstack images: listens on vsock (any CID, a free port from 10000 up) and drops every peer
    /// whose CID is not the guest's. @errors unsupported: no vsock on this host
    [[nodiscard]] static Result<std::unique_ptr<HostApi>>
    serve_vsock(EventLoop& loop, std::uint32_t guest_cid, protocol::HostInfo info,
                Callbacks callbacks);
    /// dstack images on a host without vsock: 127.0.0.1, a free port, and a path prefix that nobody
    /// can guess.
    [[nodiscard]] static Result<std::unique_ptr<HostApi>>
    serve_loopback(EventLoop& loop, protocol::HostInfo info, Callbacks callbacks);

    HostApi(const HostApi&) = delete;
    HostApi& operator=(const HostApi&) = delete;
    ~HostApi();

    /// What the guest's `host_api_url` must say, e.g. "vsock://2:10003/api" or
    /// "http://10.0.2.2:40123/5f..e1/api"; empty for virtio-serial.
    [[nodiscard]] const std::string& url() const noexcept;

private:
    struct Impl;
    explicit HostApi(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

}  // namespace host_runner::hostapi

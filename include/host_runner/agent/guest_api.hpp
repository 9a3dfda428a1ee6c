// SPDX-License-Identifier: Apache-2.0
#pragma once

/// What the runner may ask the guest, on two virtio-serial ports: short requests on one, Exec and
/// following logs on the other. Each port has a thread, so a long answer holds up no short one.

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "host_runner/agent/log_store.hpp"
#include "host_runner/net/http.hpp"
#include "host_runner/net/http_server.hpp"
#include "host_runner/protocol/guest_api.hpp"
#include "host_runner/wasm/worker/counters.hpp"

namespace host_runner::agent {

/// What the API shows, written by the agent's loop and read by the ports' threads.
class GuestState {
public:
    [[nodiscard]] protocol::GuestInfo info() const;
    void set_info(protocol::GuestInfo info);
    [[nodiscard]] std::vector<protocol::ServiceStatus> services() const;
    void set_services(std::vector<protocol::ServiceStatus> services);
    /// services() has what these say at the moment, for the service or replica of this name.
    void set_counters(const std::string& name,
                      std::shared_ptr<const wasm::worker::Counters> counters);

private:
    mutable std::mutex mutex_;
    protocol::GuestInfo info_;
    std::vector<protocol::ServiceStatus> services_;
    std::map<std::string, std::shared_ptr<const wasm::worker::Counters>> counters_;
};

struct GuestApiContext {
    GuestState* state = nullptr; ///< Borrowed, like the store.
    LogStore* logs = nullptr;
    std::string root;                                    ///< For SysInfo; "" for the real one.
    std::vector<std::string> mount_points;               ///< For SysInfo.
    std::function<void()> shut_down;                     ///< Any thread; must not block.
    bool allow_exec = false;                             ///< The dev flavour.
    std::map<std::string, std::string> exec_environment; ///< The request's variables win.
    std::chrono::milliseconds keep_alive{5'000};
};

/// Answers Info, SysInfo, Services and Shutdown; 404 for others; 403 for Exec where it is not
/// allowed. Thread-safe.
[[nodiscard]] net::HttpResponse answer_guest_request(const GuestApiContext& context,
                                                     const net::HttpRequest& request);

/// Streams stored lines, and new ones while `follow` is asked for, until the peer is gone or the
/// store closes. On quiet streams keep-alive lines find a peer that is gone.
void stream_logs(const GuestApiContext& context, const net::HttpRequest& request,
                 const net::ChunkWriter& write);

/// Runs a program and streams its output and exit code; kills it (its whole session) when the peer
/// is gone or the store closes. Call from a thread that outlives the program.
void stream_exec(const GuestApiContext& context, const net::HttpRequest& request,
                 const net::ChunkWriter& write);

class GuestApi {
public:
    /// Serves both character devices until destroyed. Starts two threads; block signals before.
    /// @errors not_found: a port is missing, so the runner cannot reach this guest
    [[nodiscard]] static Result<std::unique_ptr<GuestApi>>
    serve(GuestApiContext context, const std::string& request_port, const std::string& stream_port);
    GuestApi(const GuestApi&) = delete;
    GuestApi& operator=(const GuestApi&) = delete;
    /// Interrupts and joins. Close the log store before, so that following ends.
    ~GuestApi();

private:
    struct Port;
    explicit GuestApi(GuestApiContext context);
    GuestApiContext context_;
    std::vector<std::unique_ptr<Port>> ports_;
};

} // namespace host_runner::agent

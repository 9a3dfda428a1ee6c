// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The runner's end of the control socket (see control.hpp for the words on it).
///
///     HR_TRY(auto server, ControlServer::listen(loop, paths.control_socket(),
///         {.status = [&] { return vm.status(); },
///          .services = [&](auto done) { vm.ask_services(std::move(done)); },
///          .stop = [&](const StopRequest& request, auto on_step) {
///              vm.request_stop(request, std::move(on_step));
///          }}));
///
/// Everything happens on the loop's thread. Peers with another uid than ours, other than root, are
/// turned away (SO_PEERCRED); a request is one line of at most 4 KiB within a deadline; a peer that
/// does not read its answers is dropped; there are at most `max_clients`.

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>

#include "host_runner/base/error.hpp"
#include "host_runner/base/event_loop.hpp"
#include "host_runner/instance/control.hpp"

namespace host_runner::instance {

class ControlServer {
public:
    struct Callbacks {
        std::function<LiveStatus()> status;
        /// Asks the guest. `done` may be called until long after, also when the client or the
        /// server is gone, or never: the client is dropped after Limits::services_deadline.
        std::function<void(std::function<void(const Result<std::string>&)> done)> services;
        /// Begins the stop, or joins the one that runs. `on_step` may be called until long after,
        /// also when the client or the server is gone; a step with `done` ends the answer.
        std::function<void(const StopRequest&, std::function<void(const StopStep&)> on_step)> stop;
    };
    struct Limits {
        std::size_t max_clients = 16; ///< More wait in the kernel's queue.
        std::chrono::milliseconds request_deadline{2'000};
        std::chrono::milliseconds services_deadline{10'000};
    };

    /// Binds `path` (0600); what lies there from an earlier run is removed, so the caller must hold
    /// the instance's lock. The loop must outlive the server.
    /// @errors invalid_argument: the path is too long for a unix socket; io_error
    [[nodiscard]] static Result<std::unique_ptr<ControlServer>>
    listen(EventLoop& loop, const std::string& path, Callbacks callbacks) {
        return listen(loop, path, std::move(callbacks), Limits{});
    }
    [[nodiscard]] static Result<std::unique_ptr<ControlServer>>
    listen(EventLoop& loop, const std::string& path, Callbacks callbacks, Limits limits);

    ControlServer(const ControlServer&) = delete;
    ControlServer& operator=(const ControlServer&) = delete;
    /// Closes all connections and removes the socket.
    ~ControlServer();

private:
    struct Impl;
    explicit ControlServer(std::shared_ptr<Impl> impl);
    std::shared_ptr<Impl> impl_; // a stop's steps may come when we are gone
};

} // namespace host_runner::instance

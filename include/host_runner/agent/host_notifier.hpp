// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Tells the runner what happens, in order, without anybody waiting for its answer.

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>

#include "host_runner/net/http_client.hpp"
#include "host_runner/protocol/host_api.hpp"

namespace host_runner::agent {

class HostNotifier {
public:
    static constexpr std::size_t max_queued_events = 256;

    /// Starts a thread that sends each event by POST /api/Notify over `connector`; one that is not
    /// answered after three tries is given up, and `say` (any thread) tells so.
    HostNotifier(net::Connector connector, std::function<void(std::string_view)> say);
    HostNotifier(const HostNotifier&) = delete;
    HostNotifier& operator=(const HostNotifier&) = delete;
    ~HostNotifier();

    /// Thread-safe. The payload is cut to what the host accepts.
    void notify(std::string_view event, std::string_view payload);

    /// True when all events were sent or given up within `timeout`.
    bool flush(std::chrono::milliseconds timeout);

private:
    void send_events();
    void send(const protocol::Event& event);

    net::Connector connector_;
    std::function<void(std::string_view)> say_;
    std::mutex mutex_; // guards what follows
    std::condition_variable changed_;
    std::deque<protocol::Event> queue_;
    bool sending_ = false;
    bool stopping_ = false;
    std::thread thread_;
};

} // namespace host_runner::agent

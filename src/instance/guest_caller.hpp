// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Asks the guest API without holding up the event loop.
///
/// It owns one thread, because net::send_request() blocks (cpp-httplib underneath) and a guest may
/// take its time; the thread starts with the first call. Requests go one at a time, as the
/// virtio-serial port demands.

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "host_runner/base/event_loop.hpp"
#include "host_runner/net/http_client.hpp"

namespace host_runner::instance {

class GuestCaller {
public:
    using Reply = std::function<void(Result<std::string> body)>;

    GuestCaller(EventLoop& loop, net::Connector connector);
    GuestCaller(const GuestCaller&) = delete;
    GuestCaller& operator=(const GuestCaller&) = delete;
    /// Waits for a running request: at most its timeout, and no time once the guest is gone. No
    /// reply comes any more.
    ~GuestCaller();

    /// POST /api/<method>?json with the body {}. `reply` runs on the loop.
    /// @errors of the reply: as net::send_request(); unavailable: an answer other than 200
    void call(std::string method, std::chrono::milliseconds timeout, Reply reply);
    /// Forgets what has not been sent; those replies never come.
    void drop_waiting();

private:
    struct Request {
        std::string method;
        std::chrono::milliseconds timeout;
        Reply reply;
    };
    void work() noexcept;

    EventLoop& loop_;
    net::Connector connector_;
    std::shared_ptr<bool> alive_ = std::make_shared<bool>(true); ///< Loop's thread only.
    std::mutex mutex_;                                           // guards waiting_ and stopping_
    std::condition_variable changed_;
    std::deque<Request> waiting_;
    bool stopping_ = false;
    std::thread thread_;
};

} // namespace host_runner::instance

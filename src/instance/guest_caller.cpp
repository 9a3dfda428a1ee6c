// SPDX-License-Identifier: Apache-2.0
#include "guest_caller.hpp"

#include <utility>

#include <fmt/format.h>

#include "host_runner/base/units.hpp"

namespace host_runner::instance {

namespace {

/// dstack's Info carries a certificate and an event log (tcb_info): tens of KiB.
constexpr std::size_t max_answer_bytes = 256 * kib;

Result<std::string> ask(const net::Connector& connector, const std::string& method,
                        std::chrono::milliseconds timeout) {
    net::HttpRequest request;
    request.method = "POST";
    request.path = "/api/" + method;
    request.query = "json";
    request.headers["content-type"] = "application/json";
    request.body = "{}";
    net::RequestOptions options;
    options.timeout = timeout;
    options.max_body_bytes = max_answer_bytes;
    HR_TRY(auto response, net::send_request(connector, request, options));
    if (response.status != 200)
        return fail(ErrorCode::unavailable,
                    fmt::format("The guest answered {} with status {}", method, response.status));
    return std::move(response.body);
}

} // namespace

GuestCaller::GuestCaller(EventLoop& loop, net::Connector connector)
    : loop_(loop), connector_(std::move(connector)) {}

GuestCaller::~GuestCaller() {
    *alive_ = false;
    {
        const std::lock_guard lock(mutex_);
        stopping_ = true;
        waiting_.clear();
    }
    changed_.notify_one();
    if (thread_.joinable())
        thread_.join();
}

void GuestCaller::call(std::string method, std::chrono::milliseconds timeout, Reply reply) {
    {
        const std::lock_guard lock(mutex_);
        waiting_.push_back({std::move(method), timeout, std::move(reply)});
    }
    if (!thread_.joinable())
        thread_ = std::thread([this] { work(); });
    changed_.notify_one();
}

void GuestCaller::drop_waiting() {
    const std::lock_guard lock(mutex_);
    waiting_.clear();
}

void GuestCaller::work() noexcept {
    for (;;) {
        Request request;
        {
            std::unique_lock lock(mutex_);
            changed_.wait(lock, [this] { return stopping_ || !waiting_.empty(); });
            if (stopping_)
                return;
            request = std::move(waiting_.front());
            waiting_.pop_front();
        }
        auto body = ask(connector_, request.method, request.timeout);
        loop_.post([alive = alive_, reply = std::move(request.reply), body = std::move(body)] {
            if (*alive)
                reply(body);
        });
    }
}

} // namespace host_runner::instance

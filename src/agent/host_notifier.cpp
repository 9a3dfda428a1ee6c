// SPDX-License-Identifier: Apache-2.0
#include "host_runner/agent/host_notifier.hpp"

#include <array>
#include <utility>

#include <fmt/format.h>

namespace host_runner::agent {

namespace {

/// dstack's guests wait for ever; an answer takes the runner no time, so this is for a hung one.
constexpr std::chrono::milliseconds answer_timeout{3'000};
constexpr std::chrono::milliseconds retry_delay{500};
constexpr int max_tries = 3;

} // namespace

HostNotifier::HostNotifier(net::Connector connector, std::function<void(std::string_view)> say)
    : connector_(std::move(connector)), say_(std::move(say)), thread_([this] { send_events(); }) {}

HostNotifier::~HostNotifier() {
    {
        const std::lock_guard lock(mutex_);
        stopping_ = true;
    }
    changed_.notify_all();
    thread_.join();
}

void HostNotifier::notify(std::string_view event, std::string_view payload) {
    {
        const std::lock_guard lock(mutex_);
        // Only a host that answers nothing lets it grow; the newest events say the most.
        if (queue_.size() == max_queued_events)
            queue_.pop_front();
        queue_.push_back({std::string(event),
                          std::string(payload.substr(0, protocol::max_event_payload_bytes))});
    }
    changed_.notify_all();
}

bool HostNotifier::flush(std::chrono::milliseconds timeout) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, timeout, [this] { return queue_.empty() && !sending_; });
}

void HostNotifier::send_events() {
    std::unique_lock lock(mutex_);
    for (;;) {
        changed_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
        if (stopping_)
            return;
        const auto event = std::move(queue_.front());
        queue_.pop_front();
        sending_ = true;
        lock.unlock();
        send(event);
        lock.lock();
        sending_ = false;
        changed_.notify_all();
    }
}

void HostNotifier::send(const protocol::Event& event) {
    net::HttpRequest request;
    request.method = "POST";
    request.path = "/api/Notify";
    request.query = "json";
    request.headers["content-type"] = "application/json";
    request.body = protocol::encode_event(event);
    net::RequestOptions options;
    options.timeout = answer_timeout;
    options.max_body_bytes = 4096;
    std::string problem;
    for (int tries = 0; tries < max_tries; ++tries) {
        const auto response = net::send_request(connector_, request, options);
        if (response && response->status == 200)
            return;
        problem =
            response ? fmt::format("status {}", response->status) : response.error().describe();
        std::unique_lock lock(mutex_);
        if (changed_.wait_for(lock, retry_delay, [this] { return stopping_; }))
            break;
    }
    say_(fmt::format("The runner did not take the event {} '{}': {}", event.name, event.payload,
                     problem));
}

} // namespace host_runner::agent

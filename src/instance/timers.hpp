// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The timers of one object on a loop it shares: all that are armed end with it.

#include <chrono>
#include <functional>
#include <memory>
#include <set>
#include <utility>

#include "host_runner/base/event_loop.hpp"

namespace host_runner::instance {

class Timers {
public:
    using Id = EventLoop::TimerId;

    explicit Timers(EventLoop& loop) : loop_(loop) {}
    Timers(const Timers&) = delete;
    Timers& operator=(const Timers&) = delete;
    ~Timers() {
        cancel_all();
    }

    /// `action` may destroy this object.
    Id after(std::chrono::milliseconds delay, std::function<void()> action) {
        // The id is known only after call_after() returns, hence the shared cell.
        auto id = std::make_shared<Id>(0);
        *id = loop_.call_after(delay, [this, id, action = std::move(action)] {
            armed_.erase(*id);
            action();
        });
        armed_.insert(*id);
        return *id;
    }

    void cancel(Id& id) {
        loop_.cancel(id);
        armed_.erase(id);
        id = 0;
    }

    void cancel_all() {
        for (const auto id : std::exchange(armed_, {}))
            loop_.cancel(id);
    }

private:
    EventLoop& loop_;
    std::set<Id> armed_; ///< Each removes itself when it fires.
};

} // namespace host_runner::instance

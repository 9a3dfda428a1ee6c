// SPDX-License-Identifier: Apache-2.0
#include "host_runner/agent/console.hpp"

#include <utility>

#include <fmt/format.h>

#include "host_runner/base/files.hpp"

namespace host_runner::agent {

Console::Console(int fd) : fd_(fd), thread_([this] { write_queue(); }) {}

Console::~Console() {
    flush(std::chrono::seconds(1));
    {
        const std::lock_guard lock(mutex_);
        stopping_ = true;
    }
    changed_.notify_all();
    thread_.join();
}

void Console::line(std::string_view prefix, std::string_view text) {
    {
        const std::lock_guard lock(mutex_);
        if (queue_.size() + prefix.size() + text.size() > max_queue_bytes) {
            ++dropped_lines_;
            return;
        }
        if (dropped_lines_ > 0)
            queue_ += fmt::format("guest_agent: {} lines are not shown here, because this line is "
                                  "slower than the services print\n",
                                  std::exchange(dropped_lines_, 0));
        queue_.append(prefix).append(text).append("\n");
    }
    changed_.notify_all();
}

bool Console::flush(std::chrono::milliseconds timeout) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, timeout,
                             [this] { return broken_ || (queue_.empty() && !writing_); });
}

void Console::write_queue() {
    std::unique_lock lock(mutex_);
    for (;;) {
        changed_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
        if (stopping_)
            return;
        // In small pieces, so that flush() and the destructor are not held up by a full queue.
        const std::string piece = queue_.substr(0, 4096);
        queue_.erase(0, piece.size());
        writing_ = true;
        lock.unlock();
        const bool good = write_all(fd_, piece).has_value();
        lock.lock();
        writing_ = false;
        if (!good) {
            // Nobody could be told; the lines stay in the log files and in memory.
            broken_ = true;
            queue_.clear();
        }
        changed_.notify_all();
    }
}

} // namespace host_runner::agent

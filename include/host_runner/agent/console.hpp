// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The serial line as the agent writes to it. The line is slow and its reader may be hostile, so
/// nobody waits for it: a thread writes, its queue is bounded, and what does not fit is counted.

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>

namespace host_runner::agent {

class Console {
public:
    static constexpr std::size_t max_queue_bytes = 256UL * 1024;

    /// Writes to `fd`, which is borrowed. Starts a thread; block signals before.
    explicit Console(int fd);
    Console(const Console&) = delete;
    Console& operator=(const Console&) = delete;
    /// Gives the queue a second to drain.
    ~Console();

    /// Queues "prefix" + text + newline. Thread-safe. Dropped when the queue is full; the next
    /// line that fits is preceded by one that tells how many were.
    void line(std::string_view prefix, std::string_view text);

    /// True when everything queued was written within `timeout`. Thread-safe.
    bool flush(std::chrono::milliseconds timeout);

private:
    void write_queue();

    int fd_;
    std::mutex mutex_; // guards what follows
    std::condition_variable changed_;
    std::string queue_;
    std::size_t dropped_lines_ = 0;
    bool writing_ = false;
    bool stopping_ = false;
    bool broken_ = false;
    std::thread thread_;
};

} // namespace host_runner::agent

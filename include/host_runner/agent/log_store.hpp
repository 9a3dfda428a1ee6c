// SPDX-License-Identifier: Apache-2.0
#pragma once

/// What the services and the agent print: to the serial line with a prefix, to one bounded file per
/// service, and to memory for the guest API. Standard output and error of a service share one pipe,
/// which keeps their order.

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "host_runner/agent/console.hpp"
#include "host_runner/base/error.hpp"
#include "host_runner/base/event_loop.hpp"
#include "host_runner/base/unique_fd.hpp"

namespace host_runner::agent {

struct LogLine {
    std::uint64_t number = 0; ///< Counts over all services, from 1.
    std::string service;
    std::string text; ///< Without its newline.
};

/// Cuts a byte stream into lines of at most `max_line_bytes`; longer ones are split.
class LineSplitter {
public:
    static constexpr std::size_t max_line_bytes = 16UL * 1024;
    /// The lines that `bytes` completes.
    [[nodiscard]] std::vector<std::string> push(std::string_view bytes);
    /// The unfinished last line; empty when there is none.
    [[nodiscard]] std::string finish();

private:
    std::string rest_;
};

class LogStore {
public:
    /// The agent's own lines carry this name.
    static constexpr std::string_view agent_name = "guest_agent";
    static constexpr std::size_t max_file_bytes = 512UL * 1024;   ///< Then it becomes NAME.log.1.
    static constexpr std::size_t max_memory_bytes = 256UL * 1024; ///< Per service.

    /// Files go to `directory` (made when missing). `console` is borrowed and may be null.
    LogStore(std::string directory, Console* console);
    LogStore(const LogStore&) = delete;
    LogStore& operator=(const LogStore&) = delete;
    ~LogStore();

    /// Stores one line. Thread-safe.
    void append(std::string_view service, std::string_view text);
    /// A line of the agent's own. Thread-safe.
    void say(std::string_view text) {
        append(agent_name, text);
    }

    /// Who asks for `service` gets the lines of `replica` too from here on. Thread-safe.
    void add_replica(const std::string& service, std::string_view replica);

    /// Reads `reader` (made non-blocking) on the loop until its end. The store must outlive the
    /// loop's run. Loop thread only.
    void attach(EventLoop& loop, std::string service, UniqueFd reader);

    /// The stored lines of one service (empty: of all) in order, at most the last `tail`.
    [[nodiscard]] std::vector<LogLine> lines(std::string_view service,
                                             std::optional<std::uint32_t> tail) const;
    /// Waits for lines newer than `after`; empty after `timeout` or close(). What was dropped from
    /// memory meanwhile is missing.
    [[nodiscard]] std::vector<LogLine> wait_for_lines(std::string_view service, std::uint64_t after,
                                                      std::chrono::milliseconds timeout) const;
    /// Ends all waiting. Thread-safe.
    void close();
    [[nodiscard]] bool closed() const;

private:
    struct Service;
    [[nodiscard]] std::map<std::string, std::unique_ptr<Service>, std::less<>>::iterator
    entry(std::string_view service);
    void write_to_file(const std::string& name, Service& service, std::string_view text);
    [[nodiscard]] std::vector<LogLine> lines_after(std::string_view service,
                                                   std::uint64_t after) const;

    std::string directory_;
    Console* console_;
    mutable std::mutex mutex_; // guards what follows
    mutable std::condition_variable changed_;
    std::map<std::string, std::unique_ptr<Service>, std::less<>> services_;
    std::uint64_t last_number_ = 0;
    bool closed_ = false;
};

} // namespace host_runner::agent

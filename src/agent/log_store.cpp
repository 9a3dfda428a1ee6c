// SPDX-License-Identifier: Apache-2.0
#include "host_runner/agent/log_store.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <utility>

#include <fcntl.h>
#include <unistd.h>

#include <fmt/format.h>

#include "host_runner/base/files.hpp"

namespace host_runner::agent {

struct LogStore::Service {
    std::string replica_of; ///< Empty: it is no replica.
    std::deque<LogLine> lines;
    std::size_t line_bytes = 0;
    UniqueFd file;
    std::size_t file_bytes = 0;
    bool file_failed = false;
};

std::vector<std::string> LineSplitter::push(std::string_view bytes) {
    std::vector<std::string> lines;
    while (!bytes.empty()) {
        const auto newline = bytes.find('\n');
        const auto room = max_line_bytes - rest_.size();
        const auto count = std::min({newline, bytes.size(), room});
        rest_.append(bytes.substr(0, count));
        bytes.remove_prefix(count);
        const bool ends = !bytes.empty() && bytes.front() == '\n';
        if (ends)
            bytes.remove_prefix(1);
        if (ends || rest_.size() == max_line_bytes)
            lines.push_back(std::exchange(rest_, {}));
    }
    return lines;
}

std::string LineSplitter::finish() {
    return std::exchange(rest_, {});
}

LogStore::LogStore(std::string directory, Console* console)
    : directory_(std::move(directory)), console_(console) {
    if (auto made = make_directories(directory_, 0755); !made && console_ != nullptr)
        console_->line("guest_agent: ", made.error().describe());
}

LogStore::~LogStore() = default;

std::map<std::string, std::unique_ptr<LogStore::Service>, std::less<>>::iterator
LogStore::entry(std::string_view service) {
    const auto found = services_.find(service);
    return found != services_.end() ? found
                                    : services_.emplace(service, std::make_unique<Service>()).first;
}

void LogStore::add_replica(const std::string& service, std::string_view replica) {
    const std::lock_guard lock(mutex_);
    entry(replica)->second->replica_of = service;
}

void LogStore::append(std::string_view service, std::string_view text) {
    if (console_ != nullptr)
        console_->line(service == agent_name ? "guest_agent: " : fmt::format("{} | ", service),
                       text);
    {
        const std::lock_guard lock(mutex_);
        const auto found = entry(service);
        auto& stored = *found->second;
        stored.lines.push_back({++last_number_, found->first, std::string(text)});
        stored.line_bytes += text.size();
        while (stored.line_bytes > max_memory_bytes && stored.lines.size() > 1) {
            stored.line_bytes -= stored.lines.front().text.size();
            stored.lines.pop_front();
        }
        write_to_file(found->first, stored, text);
    }
    changed_.notify_all();
}

void LogStore::write_to_file(const std::string& name, Service& service, std::string_view text) {
    if (service.file_failed)
        return;
    const auto path = fmt::format("{}/{}.log", directory_, name);
    if (service.file && service.file_bytes + text.size() > max_file_bytes) {
        service.file.reset();
        static_cast<void>(std::rename(path.c_str(), (path + ".1").c_str()));
    }
    if (!service.file) {
        service.file.reset(
            ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644));
        service.file_bytes = 0;
    }
    auto written = service.file ? write_all(service.file.get(), fmt::format("{}\n", text))
                                : Result<void>(fail_errno("Cannot open it", errno));
    if (!written) {
        // Said once, and not through append(): it would come back here.
        service.file_failed = true;
        if (console_ != nullptr)
            console_->line("guest_agent: ", fmt::format("{} takes no more lines: {}", path,
                                                        written.error().message));
        return;
    }
    service.file_bytes += text.size() + 1;
}

void LogStore::attach(EventLoop& loop, std::string service, UniqueFd reader) {
    struct Stream {
        UniqueFd fd;
        LineSplitter splitter;
    };
    const int fd = reader.get();
    auto stream = std::make_shared<Stream>(Stream{std::move(reader), {}});
    const auto read_some = [this, &loop, stream, service](std::uint32_t) {
        std::array<char, 16384> buffer{};
        const ssize_t count = ::read(stream->fd.get(), buffer.data(), buffer.size());
        if (count < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (count > 0) {
            for (const auto& line : stream->splitter.push(
                     std::string_view(buffer.data(), static_cast<std::size_t>(count))))
                append(service, line);
            return;
        }
        if (const auto rest = stream->splitter.finish(); !rest.empty())
            append(service, rest);
        loop.unwatch(stream->fd.get());
    };
    if (::fcntl(fd, F_SETFL, O_NONBLOCK) != 0)
        say(fmt::format("The output of {} cannot be read without blocking", service));
    else if (auto watched = loop.watch(fd, EPOLLIN, read_some); !watched)
        say(fmt::format("The output of {} cannot be read: {}", service, watched.error().message));
}

std::vector<LogLine> LogStore::lines_after(std::string_view service, std::uint64_t after) const {
    std::vector<LogLine> result;
    for (const auto& [name, stored] : services_) {
        if (!service.empty() && name != service && stored->replica_of != service)
            continue;
        const auto first =
            std::partition_point(stored->lines.begin(), stored->lines.end(),
                                 [after](const LogLine& line) { return line.number <= after; });
        result.insert(result.end(), first, stored->lines.end());
    }
    std::sort(result.begin(), result.end(),
              [](const LogLine& a, const LogLine& b) { return a.number < b.number; });
    return result;
}

std::vector<LogLine> LogStore::lines(std::string_view service,
                                     std::optional<std::uint32_t> tail) const {
    const std::lock_guard lock(mutex_);
    auto result = lines_after(service, 0);
    if (tail && result.size() > *tail)
        result.erase(result.begin(), result.end() - static_cast<std::ptrdiff_t>(*tail));
    return result;
}

std::vector<LogLine> LogStore::wait_for_lines(std::string_view service, std::uint64_t after,
                                              std::chrono::milliseconds timeout) const {
    std::unique_lock lock(mutex_);
    std::vector<LogLine> result;
    changed_.wait_for(lock, timeout, [&] {
        result = lines_after(service, after);
        return closed_ || !result.empty();
    });
    return result;
}

void LogStore::close() {
    {
        const std::lock_guard lock(mutex_);
        closed_ = true;
    }
    changed_.notify_all();
}

bool LogStore::closed() const {
    const std::lock_guard lock(mutex_);
    return closed_;
}

} // namespace host_runner::agent

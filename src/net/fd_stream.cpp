// SPDX-License-Identifier: Apache-2.0
#include "fd_stream.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <thread>
#include <utility>

#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

namespace host_runner::net {

namespace {

/// While the host is connected a virtio port may answer a read with 0 bytes (seen with Linux 6.1);
/// poll() then says readable again at once, so it is asked at this pace.
constexpr std::chrono::milliseconds empty_read_pause{2};

bool is_character_device(int fd) {
    struct stat status {};
    return ::fstat(fd, &status) == 0 && S_ISCHR(status.st_mode);
}

} // namespace

FdStream::FdStream(int fd, int wake_fd)
    : fd_(fd), wake_fd_(wake_fd), is_device_(is_character_device(fd)) {}

void FdStream::start_message(std::size_t max_header_bytes, std::size_t max_line_bytes) {
    in_headers_ = true;
    header_bytes_ = 0;
    header_end_matched_ = 0;
    max_header_bytes_ = max_header_bytes;
    line_bytes_ = 0;
    max_line_bytes_ = max_line_bytes;
}

bool FdStream::comes_back() const {
    constexpr std::chrono::milliseconds away_time{100};
    constexpr std::chrono::milliseconds pause{5};
    const auto until = Clock::now() + away_time;
    for (;;) {
        pollfd state{fd_, POLLIN, 0};
        if (::poll(&state, 1, 0) < 0 || (state.revents & (POLLERR | POLLNVAL)) != 0)
            return false;
        if ((state.revents & POLLHUP) == 0)
            return true;
        if (Clock::now() >= until)
            return false;
        std::this_thread::sleep_for(pause);
    }
}

bool FdStream::wait_until(short events) {
    for (;;) {
        int timeout_ms = -1;
        if (deadline_) {
            const auto left =
                std::chrono::ceil<std::chrono::milliseconds>(*deadline_ - Clock::now());
            if (left.count() <= 0) {
                broken_ = Broken::timeout;
                return false;
            }
            timeout_ms = static_cast<int>(std::min<std::int64_t>(left.count(), INT_MAX));
        }
        std::array<pollfd, 2> waiting{{{fd_, events, 0}, {wake_fd_, POLLIN, 0}}};
        const int ready = ::poll(waiting.data(), wake_fd_ >= 0 ? 2 : 1, timeout_ms);
        if (ready < 0 && errno == EINTR)
            continue;
        if (ready < 0) {
            broken_ = Broken::closed;
            return false;
        }
        if (waiting[1].revents != 0) {
            broken_ = Broken::interrupted;
            return false;
        }
        if ((waiting[0].revents & events) != 0)
            return true;
        if (waiting[0].revents != 0) { // POLLHUP, POLLERR: nothing more to read or to write
            if (is_device_ && comes_back())
                continue;
            broken_ = Broken::closed;
            return false;
        }
    }
}

bool FdStream::fill() {
    buffer_.clear();
    buffer_begin_ = 0;
    std::array<char, 16384> block{};
    for (;;) {
        if (broken_ != Broken::none || !wait_until(POLLIN))
            return false;
        const ssize_t count = ::read(fd_, block.data(), block.size());
        if (count > 0) {
            buffer_.assign(block.data(), static_cast<std::size_t>(count));
            return true;
        }
        if (count < 0 && (errno == EINTR || errno == EAGAIN || errno == EWOULDBLOCK))
            continue;
        if (count == 0 && is_device_ && comes_back()) {
            std::this_thread::sleep_for(empty_read_pause);
            continue;
        }
        broken_ = Broken::closed;
        return false;
    }
}

bool FdStream::count_header(std::string_view bytes) {
    constexpr std::string_view end = "\r\n\r\n";
    for (const char c : bytes) {
        if (!in_headers_)
            return true;
        if (++header_bytes_ > max_header_bytes_) {
            broken_ = Broken::headers_too_large;
            return false;
        }
        if (c == end[header_end_matched_])
            ++header_end_matched_;
        else
            header_end_matched_ = c == '\r' ? 1 : 0;
        in_headers_ = header_end_matched_ < end.size();
    }
    return true;
}

bool FdStream::count_line(char byte) {
    line_bytes_ = byte == '\n' ? 0 : line_bytes_ + 1;
    if (line_bytes_ <= max_line_bytes_)
        return true;
    broken_ = Broken::headers_too_large;
    return false;
}

bool FdStream::is_asked_anew() const {
    if (!is_device_)
        return false; // there it would be the same peer, which need not wait for its answer
    pollfd state{fd_, POLLIN, 0};
    return buffer_begin_ < buffer_.size() ||
           // A port without a host reports both.
           (::poll(&state, 1, 0) > 0 && (state.revents & (POLLIN | POLLHUP)) == POLLIN);
}

bool FdStream::wait_for_input() {
    return buffer_begin_ < buffer_.size() || fill();
}

void FdStream::expect_answer(std::string request_id, std::size_t max_bytes) {
    expected_id_ = std::move(request_id);
    max_skipped_bytes_ = max_bytes;
}

bool FdStream::skip_to_answer() {
    const std::string mark = "\r\nx-request-id: " + std::exchange(expected_id_, {}) + "\r\n";
    std::string seen; // the last bytes, enough for the answer's header
    for (std::size_t skipped = 0; skipped <= max_skipped_bytes_;) {
        if (!fill())
            return false;
        const auto from = seen.size() - std::min(seen.size(), mark.size() - 1);
        seen += buffer_;
        // The last start before the mark: an earlier answer may have been cut within its header.
        const auto found = seen.find(mark, from);
        const auto begin = found == std::string::npos ? found : seen.rfind("HTTP/1.1 ", found);
        if (begin != std::string::npos) {
            buffer_ = seen.substr(begin);
            return true;
        }
        if (seen.size() > max_header_bytes_) {
            const auto surplus = seen.size() - max_header_bytes_;
            seen.erase(0, surplus);
            skipped += surplus;
        }
    }
    broken_ = Broken::headers_too_large;
    return false;
}

bool FdStream::is_readable() const {
    return broken_ == Broken::none;
}

bool FdStream::is_writable() const {
    return broken_ == Broken::none;
}

ssize_t FdStream::read(char* data, size_t size) {
    if (!expected_id_.empty() && !skip_to_answer())
        return -1;
    if (buffer_begin_ == buffer_.size() && !fill())
        return -1;
    const auto count = std::min(size, buffer_.size() - buffer_begin_);
    std::copy_n(buffer_.data() + buffer_begin_, count, data);
    buffer_begin_ += count;
    const bool in_line = size == 1;
    if (!count_header({data, count}) || (in_line && !count_line(*data)))
        return -1;
    return static_cast<ssize_t>(count);
}

ssize_t FdStream::write(const char* data, size_t size) {
    std::size_t done = 0;
    while (done < size) {
        if (broken_ != Broken::none || !wait_until(POLLOUT))
            return -1;
        // Without SIGPIPE, which would end programs that do not ignore it.
        const ssize_t count = is_device_ ? ::write(fd_, data + done, size - done)
                                         : ::send(fd_, data + done, size - done, MSG_NOSIGNAL);
        if (count < 0 && (errno == EINTR || errno == EAGAIN || errno == EWOULDBLOCK))
            continue;
        if (count <= 0) {
            broken_ = Broken::closed;
            return -1;
        }
        done += static_cast<std::size_t>(count);
    }
    return static_cast<ssize_t>(size);
}

void FdStream::get_remote_ip_and_port(std::string&, int&) const {}

void FdStream::get_local_ip_and_port(std::string&, int&) const {}

socket_t FdStream::socket() const {
    return INVALID_SOCKET; // httplib would refuse numbers from FD_SETSIZE up, though it need not
}

} // namespace host_runner::net

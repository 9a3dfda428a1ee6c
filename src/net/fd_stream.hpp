// SPDX-License-Identifier: Apache-2.0
#pragma once

/// cpp-httplib's Stream over any descriptor: sockets and character devices alike.

#include <chrono>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include <httplib.h>

namespace host_runner::net {

class FdStream final : public httplib::Stream {
public:
    using Clock = std::chrono::steady_clock;

    /// What ended the reading before its time.
    enum class Broken { none, closed, timeout, headers_too_large, interrupted };

    /// Both are borrowed; `wake_fd` (-1: none) interrupts every wait when it becomes readable.
    FdStream(int fd, int wake_fd);

    /// nullopt waits for ever.
    void set_deadline(std::optional<Clock::time_point> deadline) {
        deadline_ = deadline;
    }
    /// Starts a new message: at most `max_header_bytes` may come before its empty line, and no line
    /// of it may be longer than `max_line_bytes`, wherever it is: httplib asks for lines (of
    /// headers, chunk sizes, trailers) byte by byte and without a bound.
    void start_message(std::size_t max_header_bytes, std::size_t max_line_bytes);
    /// Waits for the first byte of a message. False when there will be none.
    [[nodiscard]] bool wait_for_input();
    /// Before its first byte, reading drops input up to the start of the answer that carries this
    /// id (see send_request()), at most `max_bytes`. After start_message().
    void expect_answer(std::string request_id, std::size_t max_bytes);

    /// Whether something has come that nobody has read. On a device, which has no borders between
    /// connections, while an answer is written: its peer has gone, and another one asks.
    [[nodiscard]] bool is_asked_anew() const;

    [[nodiscard]] Broken broken() const {
        return broken_;
    }

    bool is_readable() const override;
    bool is_writable() const override;
    ssize_t read(char* data, size_t size) override;
    ssize_t write(const char* data, size_t size) override;
    void get_remote_ip_and_port(std::string& ip, int& port) const override;
    void get_local_ip_and_port(std::string& ip, int& port) const override;
    socket_t socket() const override;

private:
    [[nodiscard]] bool wait_until(short events);
    /// Of a device that says that nobody is at its other end: whether somebody is, within a moment.
    /// Data of a virtio-serial port and the news of its connections come on queues of their own: a
    /// host that has just come and asked may still be seen to leave, for the one before it.
    [[nodiscard]] bool comes_back() const;
    [[nodiscard]] bool fill();
    [[nodiscard]] bool skip_to_answer();
    [[nodiscard]] bool count_header(std::string_view bytes);
    [[nodiscard]] bool count_line(char byte);

    int fd_;
    int wake_fd_;
    bool is_device_;
    std::optional<Clock::time_point> deadline_;
    std::string buffer_;
    std::size_t buffer_begin_ = 0;
    std::string expected_id_; ///< Empty: whatever comes is the answer.
    std::size_t max_skipped_bytes_ = 0;
    Broken broken_ = Broken::none;
    bool in_headers_ = false;
    std::size_t header_bytes_ = 0;
    std::size_t max_header_bytes_ = 0;
    unsigned header_end_matched_ = 0; ///< How much of "\r\n\r\n" the last bytes were.
    std::size_t line_bytes_ = 0;      ///< Bytes asked for one by one since the last newline.
    std::size_t max_line_bytes_ = 0;
};

} // namespace host_runner::net

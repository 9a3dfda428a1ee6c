// SPDX-License-Identifier: Apache-2.0
#include "function_call.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <string_view>
#include <utility>

#include <unistd.h>

#include <fmt/format.h>

#include "host_runner/base/files.hpp"
#include "terminal.hpp"
#include "verbs.hpp"

namespace host_runner::cli {

namespace {

/// Writes to a descriptor that others share, which therefore stays as blocking as it is, without
/// ever waiting for its reader.
class PatientWriter {
public:
    /// @param on_written gets how many bytes of what was pushed are gone
    PatientWriter(EventLoop& loop, int fd, std::function<void(std::size_t)> on_written)
        : loop_(loop), fd_(fd), is_terminal_(::isatty(fd) == 1),
          on_written_(std::move(on_written)) {}
    PatientWriter(const PatientWriter&) = delete;
    PatientWriter& operator=(const PatientWriter&) = delete;
    ~PatientWriter() {
        if (is_watched_)
            loop_.unwatch(fd_);
    }

    void push(std::string_view bytes) {
        if (problem_) { // nobody reads: the guest learns it by our cancel
            return;
        }
        pushed_ += bytes.size();
        rest_ += is_terminal_ ? filter_.pass(bytes) : std::string(bytes);
        if (is_watched_)
            return;
        auto watched = loop_.watch(fd_, EPOLLOUT, [this](std::uint32_t) { write_some(); });
        is_watched_ = watched.has_value();
        if (is_watched_)
            return;
        if (watched.error().sys_errno != EPERM) {
            fail_with(watched.error());
            return;
        }
        // A regular file is always ready.
        if (auto written = write_all(fd_, rest_); !written)
            fail_with(written.error());
        done();
    }
    [[nodiscard]] bool is_done() const noexcept {
        return rest_.empty();
    }
    [[nodiscard]] const std::optional<Error>& problem() const noexcept {
        return problem_;
    }

private:
    void write_some() {
        // As much as a pipe that is ready takes without waiting: PIPE_BUF, see pipe(7).
        constexpr std::size_t piece_bytes = 4096;
        const ssize_t count = ::write(fd_, rest_.data(), std::min(rest_.size(), piece_bytes));
        if (count < 0 && (errno == EINTR || errno == EAGAIN))
            return;
        if (count < 0)
            fail_with(fail_errno("Cannot write the output", errno).value());
        else
            rest_.erase(0, static_cast<std::size_t>(count));
        if (!rest_.empty())
            return;
        loop_.unwatch(fd_);
        is_watched_ = false;
        done();
    }
    void fail_with(Error error) {
        problem_ = std::move(error);
        rest_.clear();
    }
    void done() {
        rest_.clear();
        on_written_(std::exchange(pushed_, 0));
    }

    EventLoop& loop_;
    int fd_;
    bool is_terminal_;
    std::function<void(std::size_t)> on_written_;
    TerminalFilter filter_;
    std::string rest_;
    std::size_t pushed_ = 0; ///< Since the last on_written.
    bool is_watched_ = false;
    std::optional<Error> problem_;
};

class Running {
public:
    Running(EventLoop& loop, instance::FunctionSession& session, const FunctionCall& call)
        : loop_(loop), session_(session), call_(call),
          out_(loop, STDOUT_FILENO, [this](std::size_t bytes) { on_written(bytes); }),
          err_(loop, STDERR_FILENO, [this](std::size_t bytes) { on_written(bytes); }) {}
    Running(const Running&) = delete;
    Running& operator=(const Running&) = delete;
    ~Running() {
        stop_input();
    }

    Result<FunctionAnswer> run(const std::function<void(std::function<void()>)>& on_begin) {
        using Stream = instance::FunctionSession::Stream;
        instance::FunctionSession::Handlers handlers;
        handlers.on_output = [this](Stream stream, std::string_view bytes) {
            take_output(stream == Stream::error_output, bytes);
        };
        handlers.on_input_sent = [this] {
            watch_input();
        };
        handlers.on_result = [this](const protocol::InvokeResult& result) {
            answer_.result = result;
            has_ended_ = true;
            stop_input();
            look_for_the_end();
        };
        HR_TRY(number_, session_.begin(call_.request, std::move(handlers)));
        session_.write_input(number_, call_.input);
        if (call_.forward_stdin)
            watch_input();
        else
            session_.end_input(number_);
        if (on_begin)
            on_begin([this] { session_.cancel(number_); });
        HR_CHECK(loop_.run());
        for (const auto* writer : {&out_, &err_})
            if (writer->problem())
                return tl::unexpected<Error>(*writer->problem());
        return std::move(answer_);
    }

private:
    void take_output(bool is_error, std::string_view bytes) {
        if (!call_.keep_output) {
            auto& writer = is_error ? err_ : out_;
            writer.push(bytes);
            if (writer.problem())
                session_.cancel(number_);
            return;
        }
        (is_error ? answer_.error_output : answer_.output) += bytes;
        answer_.combined += bytes;
        session_.give_room(number_, bytes.size());
    }

    void on_written(std::size_t bytes) {
        session_.give_room(number_, bytes);
        if (out_.problem() || err_.problem())
            session_.cancel(number_);
        look_for_the_end();
    }

    void look_for_the_end() {
        if (has_ended_ && out_.is_done() && err_.is_done())
            loop_.stop();
    }

    void watch_input() {
        if (input_is_watched_ || has_ended_ || !call_.forward_stdin || input_has_ended_)
            return;
        const auto watched =
            loop_.watch(STDIN_FILENO, EPOLLIN, [this](std::uint32_t) { read_input(); });
        input_is_watched_ = watched.has_value();
        if (!watched) // a regular file, or /dev/null: always ready
            loop_.post([this] {
                if (!has_ended_)
                    read_input();
            });
    }

    void read_input() {
        std::array<char, 65536> buffer{};
        const ssize_t count = ::read(STDIN_FILENO, buffer.data(), buffer.size());
        if (count < 0 && (errno == EINTR || errno == EAGAIN))
            return;
        if (count <= 0) {
            stop_input();
            input_has_ended_ = true;
            session_.end_input(number_);
            return;
        }
        session_.write_input(number_, {buffer.data(), static_cast<std::size_t>(count)});
        const bool must_wait = session_.waiting_input(number_) > 0;
        if (must_wait)
            stop_input();
        else if (!input_is_watched_)
            watch_input();
    }

    void stop_input() {
        if (std::exchange(input_is_watched_, false))
            loop_.unwatch(STDIN_FILENO);
    }

    EventLoop& loop_;
    instance::FunctionSession& session_;
    const FunctionCall& call_;
    PatientWriter out_;
    PatientWriter err_;
    std::uint64_t number_ = 0;
    bool input_is_watched_ = false;
    bool input_has_ended_ = false;
    bool has_ended_ = false;
    FunctionAnswer answer_;
};

} // namespace

Result<std::vector<std::pair<std::string, std::string>>> parse_variable(std::string_view text) {
    const auto equals = text.find('=');
    if (equals == 0 || equals == std::string::npos)
        return fail(ErrorCode::invalid_argument, fmt::format("'{}' is no variable", text),
                    "write NAME=value");
    return std::vector{
        std::pair(std::string(text.substr(0, equals)), std::string(text.substr(equals + 1)))};
}

Result<FunctionAnswer>
run_function_call(EventLoop& loop, instance::FunctionSession& session, const FunctionCall& call,
                  const std::function<void(std::function<void()>)>& on_begin) {
    return Running(loop, session, call).run(on_begin);
}

void print_end(const std::string& function, const protocol::InvokeResult& result) {
    if (!result.message.empty())
        print_err(fmt::format("host_runner: {}: {}: {}\n", function, to_string(result.status),
                              TerminalFilter().pass(result.message)));
    if (result.truncated)
        print_err(fmt::format("host_runner: {} wrote {} bytes to stdout and {} to stderr, more "
                              "than is kept\n",
                              function, result.output_bytes, result.error_output_bytes));
}

int exit_code_of(const protocol::InvokeResult& result) noexcept {
    using protocol::CallStatus;
    switch (result.status) {
    case CallStatus::exit:
        return result.code;
    case CallStatus::limit:
        return 123;
    case CallStatus::timeout:
        return 124;
    case CallStatus::failed:
        return 125;
    case CallStatus::trap:
        return 134;
    case CallStatus::oom:
        return 137;
    case CallStatus::cancelled:
        return 143;
    case CallStatus::overloaded:
        return to_int(ExitCode::exhausted);
    case CallStatus::bad_request:
        return to_int(ExitCode::usage);
    case CallStatus::unavailable:
    case CallStatus::lost:
        break;
    }
    return to_int(ExitCode::failure);
}

} // namespace host_runner::cli

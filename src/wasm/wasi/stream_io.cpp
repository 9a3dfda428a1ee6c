// SPDX-License-Identifier: Apache-2.0
#include "stream_io.hpp"

#include <algorithm>
#include <cerrno>
#include <csignal>

#include <sys/socket.h>
#include <sys/stat.h>

namespace host_runner::wasm::wasi {

namespace {

std::span<std::byte> bytes_of(const iovec& buffer) {
    return {static_cast<std::byte*>(buffer.iov_base), buffer.iov_len};
}

/// `buffers` without its first `count` bytes.
std::span<iovec> without_first(std::span<iovec> buffers, std::size_t count) {
    while (!buffers.empty() && count >= buffers.front().iov_len) {
        count -= buffers.front().iov_len;
        buffers = buffers.subspan(1);
    }
    if (!buffers.empty() && count > 0)
        buffers.front() = {bytes_of(buffers.front()).subspan(count).data(),
                           buffers.front().iov_len - count};
    return buffers;
}

/// Repeats `operation`, a system call that does not block, until it can be done.
template <class Operation>
Answer<std::size_t> repeat(const CallDeadline& deadline, int fd, short events, Blocking blocking,
                           Operation operation) {
    for (;;) {
        const ssize_t count = operation();
        if (count >= 0)
            return static_cast<std::size_t>(count);
        if (errno == EINTR)
            continue;
        if (errno != EAGAIN || blocking == Blocking::no)
            return refuse_errno();
        WASI_CHECK(wait_for(deadline, fd, events));
    }
}

Answer<std::size_t> receive_tcp(const CallDeadline& deadline, int fd, std::span<iovec> buffers,
                                ReceiveOptions options) {
    const int flags = MSG_DONTWAIT | (options.peek ? MSG_PEEK : 0);
    std::size_t sum = 0;
    while (!buffers.empty()) {
        auto count = repeat(deadline, fd, POLLIN, options.blocking, [&] {
            msghdr message{};
            message.msg_iov = buffers.data();
            message.msg_iovlen = buffers.size();
            return ::recvmsg(fd, &message, flags);
        });
        // What has come already is not lost to an errno; a trap ends the guest anyway.
        if (!count && sum > 0 && !count.error().trap)
            break;
        if (!count)
            return count;
        sum += *count;
        if (*count == 0 || !options.wait_all)
            break;
        buffers = without_first(buffers, *count);
    }
    return sum;
}

Answer<std::size_t> receive_tls(const CallDeadline& deadline, Stream& stream,
                                std::span<iovec> buffers, ReceiveOptions options) {
    for (;;) {
        const auto into = bytes_of(buffers.front());
        const auto first = options.peek ? stream.tls->peek(into) : stream.tls->read(into);
        if (first.status == TlsStatus::closed)
            return 0;
        if (first.status != TlsStatus::done) {
            WASI_CHECK(settle(deadline, stream, first.status, options.blocking));
            continue;
        }
        std::size_t sum = first.bytes;
        // More only from what is decrypted already: that cannot block.
        for (std::size_t i = 1; i < buffers.size() && !options.peek &&
                                sum >= buffers[i - 1].iov_len && stream.tls->pending_bytes() > 0;
             ++i) {
            const auto next = stream.tls->read(bytes_of(buffers[i]));
            if (next.status != TlsStatus::done)
                break;
            sum += next.bytes;
            if (next.bytes < buffers[i].iov_len)
                break;
        }
        return sum;
    }
}

/// Sends what TLS has kept.
Answer<void> flush(const CallDeadline& deadline, Stream& stream, Blocking blocking) {
    for (;;) {
        const auto progress = stream.tls->flush();
        if (progress.status == TlsStatus::done)
            return {};
        WASI_CHECK(settle(deadline, stream, progress.status, blocking));
    }
}

Answer<std::size_t> send_tls(const CallDeadline& deadline, Stream& stream, std::span<iovec> buffers,
                             Blocking blocking) {
    std::size_t sum = 0;
    while (!buffers.empty()) {
        const auto progress = stream.tls->write(bytes_of(buffers.front()));
        if (progress.status == TlsStatus::done) {
            sum += progress.bytes;
            buffers = without_first(buffers, progress.bytes);
            continue;
        }
        if (sum > 0)
            break;
        WASI_CHECK(settle(deadline, stream, progress.status, blocking));
    }
    // A blocking writer may not come back: what it wrote must not stay here. An error shows itself
    // with the next call, since these bytes count as taken.
    if (blocking == Blocking::yes)
        if (auto flushed = flush(deadline, stream, blocking); !flushed && flushed.error().trap)
            return tl::unexpected<Failure>(std::move(flushed).error());
    return sum;
}

bool is_socket(int fd) {
    struct stat status {};
    return ::fstat(fd, &status) == 0 && S_ISSOCK(status.st_mode);
}

/// Keeps a write to a pipe that nobody reads from raising SIGPIPE in this thread.
class WithoutSigpipe {
public:
    WithoutSigpipe() noexcept {
        ::sigemptyset(&pipe_);
        ::sigaddset(&pipe_, SIGPIPE);
        sigset_t pending{};
        ::sigpending(&pending);
        was_pending_ = ::sigismember(&pending, SIGPIPE) == 1;
        ::pthread_sigmask(SIG_BLOCK, &pipe_, &before_);
    }
    WithoutSigpipe(const WithoutSigpipe&) = delete;
    WithoutSigpipe& operator=(const WithoutSigpipe&) = delete;
    ~WithoutSigpipe() {
        const int saved = errno;
        constexpr timespec at_once{};
        if (!was_pending_)
            while (::sigtimedwait(&pipe_, nullptr, &at_once) < 0 && errno == EINTR) {
            }
        ::pthread_sigmask(SIG_SETMASK, &before_, nullptr);
        errno = saved;
    }

private:
    sigset_t pipe_{};
    sigset_t before_{};
    bool was_pending_ = false;
};

} // namespace

Answer<void> settle(const CallDeadline& deadline, const Stream& stream, TlsStatus status,
                    Blocking blocking) {
    switch (status) {
    case TlsStatus::done:
        return {};
    case TlsStatus::want_read:
    case TlsStatus::want_write: {
        if (blocking == Blocking::no)
            return refuse(Errno::again);
        const short events = status == TlsStatus::want_read ? POLLIN : POLLOUT;
        // When the limit of the handshake has passed, the session says so itself.
        WASI_CHECK(wait_for(deadline, stream.fd.get(), events, stream.tls->limit()));
        return {};
    }
    case TlsStatus::closed:
        return refuse(Errno::pipe);
    case TlsStatus::truncated:
        return refuse(Errno::connreset);
    case TlsStatus::timed_out:
        return refuse(Errno::timedout);
    case TlsStatus::failed:
        break;
    }
    return refuse(stream.tls->is_established() ? Errno::proto : Errno::connaborted);
}

Answer<std::size_t> receive(const CallDeadline& deadline, Stream& stream, std::span<iovec> buffers,
                            ReceiveOptions options) {
    if (buffers.empty())
        return 0;
    return stream.tls ? receive_tls(deadline, stream, buffers, options)
                      : receive_tcp(deadline, stream.fd.get(), buffers, options);
}

Answer<std::size_t> send(const CallDeadline& deadline, Stream& stream, std::span<iovec> buffers,
                         Blocking blocking) {
    if (buffers.empty())
        return 0;
    if (stream.tls)
        return send_tls(deadline, stream, buffers, blocking);
    return write_host(deadline, stream.fd.get(), buffers, blocking);
}

Answer<std::size_t> read_host(const CallDeadline& deadline, int fd, std::span<iovec> buffers,
                              Blocking blocking) {
    if (buffers.empty())
        return 0;
    return repeat(deadline, fd, POLLIN, blocking,
                  [&] { return ::readv(fd, buffers.data(), static_cast<int>(buffers.size())); });
}

Answer<std::size_t> write_host(const CallDeadline& deadline, int fd, std::span<iovec> buffers,
                               Blocking blocking) {
    if (buffers.empty())
        return 0;
    if (is_socket(fd))
        return repeat(deadline, fd, POLLOUT, blocking, [&] {
            msghdr message{};
            message.msg_iov = buffers.data();
            message.msg_iovlen = buffers.size();
            return ::sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        });
    const WithoutSigpipe guard;
    return repeat(deadline, fd, POLLOUT, blocking,
                  [&] { return ::writev(fd, buffers.data(), static_cast<int>(buffers.size())); });
}

Answer<void> end_writing(const CallDeadline& deadline, Stream& stream, Blocking blocking) {
    // Without a handshake there is nothing to end; its last message may lie unread, though.
    if (!stream.tls || stream.tls->handshake().status != TlsStatus::done)
        return {};
    for (;;) {
        const auto progress = stream.tls->close_notify();
        if (progress.status == TlsStatus::done)
            return {};
        WASI_CHECK(settle(deadline, stream, progress.status, blocking));
    }
}

void close_orderly(const CallDeadline& deadline, Entry& entry, TimePoint limit) noexcept {
    auto* const stream = entry.as<Stream>();
    if (stream == nullptr || !stream->tls)
        return;
    try {
        CallDeadline bounded = deadline;
        bounded.at = bounded.at ? std::min(*bounded.at, limit) : limit;
        // The descriptor is gone for the guest in any case: nobody is left to be told of an error.
        static_cast<void>(
            end_writing(bounded, *stream, entry.is_nonblocking() ? Blocking::no : Blocking::yes));
    } catch (...) { // without memory the peer sees a cut stream, as it must
        return;
    }
}

} // namespace host_runner::wasm::wasi

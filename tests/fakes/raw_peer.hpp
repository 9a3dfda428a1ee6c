// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The other end of a stream, byte by byte: for well-behaved and hostile peers in tests. Nothing
/// waits longer than `patience`.

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "host_runner/base/unique_fd.hpp"

namespace host_runner::tests {

inline constexpr std::chrono::milliseconds patience{20'000};

/// Two connected ends.
inline std::pair<UniqueFd, UniqueFd> connected_pair() {
    std::array<int, 2> fds{};
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds.data()) != 0)
        throw std::runtime_error("socketpair failed");
    return {UniqueFd(fds[0]), UniqueFd(fds[1])};
}

inline sockaddr_un unix_address(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(static_cast<char*>(address.sun_path), sizeof address.sun_path - 1);
    return address;
}

inline UniqueFd listen_on_unix(const std::string& path) {
    UniqueFd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const auto address = unix_address(path);
    if (::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
        ::listen(listener.get(), 8) != 0)
        throw std::runtime_error("Cannot listen on " + path);
    return listener;
}

/// Waits while the listener's queue is full.
inline UniqueFd connect_to_unix(const std::string& path) {
    UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const auto address = unix_address(path);
    if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
        throw std::runtime_error("Cannot connect to " + path);
    return fd;
}

inline bool is_readable_within(int fd, std::chrono::milliseconds timeout) {
    pollfd waiting{fd, POLLIN, 0};
    return ::poll(&waiting, 1, static_cast<int>(timeout.count())) == 1;
}

/// The next connection; throws when none comes.
inline UniqueFd accept_one(const UniqueFd& listener) {
    if (!is_readable_within(listener.get(), patience))
        throw std::runtime_error("nobody connects");
    return UniqueFd(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
}

class RawPeer {
public:
    explicit RawPeer(UniqueFd fd) : fd_(std::move(fd)) {}

    /// False when the other end has closed.
    bool send(std::string_view bytes) {
        while (!bytes.empty()) {
            pollfd waiting{fd_.get(), POLLOUT, 0};
            if (::poll(&waiting, 1, static_cast<int>(patience.count())) != 1)
                return false;
            const ssize_t count =
                ::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
            if (count < 0 && errno == EAGAIN)
                continue;
            if (count <= 0)
                return false;
            bytes.remove_prefix(static_cast<std::size_t>(count));
        }
        return true;
    }

    /// What has come up to and with `end`; everything when the stream ends before.
    std::string receive_until(std::string_view end) {
        for (;;) {
            if (const auto found = received_.find(end); found != std::string::npos) {
                auto result = received_.substr(0, found + end.size());
                received_.erase(0, result.size());
                return result;
            }
            if (!receive_more())
                return std::exchange(received_, {});
        }
    }

    /// How often `text` comes until it has come `count` times or the stream ends.
    int count_received(std::string_view text, int count) {
        int found = 0;
        std::size_t from = 0;
        while (found < count) {
            from = received_.find(text, from);
            if (from != std::string::npos) {
                ++found;
                from += text.size();
                continue;
            }
            // What is left may be the beginning of one.
            received_.erase(0, received_.size() - std::min(received_.size(), text.size() - 1));
            from = 0;
            if (!receive_more())
                break;
        }
        return found;
    }

    /// Everything up to the end of the stream.
    std::string receive_all() {
        while (receive_more()) {
        }
        return std::exchange(received_, {});
    }

    /// True when something to read, or the end, comes within `timeout`.
    [[nodiscard]] bool is_answered_within(std::chrono::milliseconds timeout) const {
        return is_readable_within(fd_.get(), timeout);
    }

    [[nodiscard]] int fd() const noexcept {
        return fd_.get();
    }
    void close() noexcept {
        fd_.reset();
    }

private:
    bool receive_more() {
        std::array<char, 65536> block{};
        if (!is_readable_within(fd_.get(), patience))
            return false;
        const ssize_t count = ::read(fd_.get(), block.data(), block.size());
        if (count > 0)
            received_.append(block.data(), static_cast<std::size_t>(count));
        return count > 0;
    }

    UniqueFd fd_;
    std::string received_;
};

} // namespace host_runner::tests

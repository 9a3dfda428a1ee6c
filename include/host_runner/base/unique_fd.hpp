// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Owns one file descriptor and closes it.

#include <utility>

namespace host_runner {

class UniqueFd {
public:
    UniqueFd() noexcept = default;
    explicit UniqueFd(int fd) noexcept : fd_(fd) {}
    UniqueFd(UniqueFd&& other) noexcept : fd_(other.release()) {}
    UniqueFd& operator=(UniqueFd&& other) noexcept {
        reset(other.release());
        return *this;
    }
    UniqueFd(const UniqueFd&) = delete;
    UniqueFd& operator=(const UniqueFd&) = delete;
    ~UniqueFd() {
        reset();
    }

    [[nodiscard]] int get() const noexcept {
        return fd_;
    }
    [[nodiscard]] explicit operator bool() const noexcept {
        return fd_ >= 0;
    }
    /// Gives the descriptor up without closing it.
    [[nodiscard]] int release() noexcept {
        return std::exchange(fd_, -1);
    }
    /// Closes the one held and takes `fd` (-1 = none). Keeps errno.
    void reset(int fd = -1) noexcept;

private:
    int fd_ = -1;
};

} // namespace host_runner

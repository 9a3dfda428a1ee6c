// SPDX-License-Identifier: Apache-2.0
#include "host_runner/base/unique_fd.hpp"

#include <cerrno>

#include <unistd.h>

namespace host_runner {

void UniqueFd::reset(int fd) noexcept {
    if (fd_ >= 0 && fd_ != fd) {
        const int saved_errno = errno;
        // Linux frees the descriptor even where close() fails, so it must not be tried again.
        ::close(fd_);
        errno = saved_errno;
    }
    fd_ = fd;
}

} // namespace host_runner

// SPDX-License-Identifier: Apache-2.0
#include "host_runner/base/error.hpp"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace host_runner {

namespace {

ErrorCode code_for_errno(int saved_errno) noexcept {
    switch (saved_errno) {
    case ENOENT:
    case ENOTDIR:
    case ESRCH:
        return ErrorCode::not_found;
    case EEXIST:
    case EADDRINUSE:
        return ErrorCode::already_exists;
    case EACCES:
    case EPERM:
    case EROFS:
        return ErrorCode::permission_denied;
    case ENOSPC:
    case EDQUOT:
    case ENOMEM:
    case EMFILE:
    case ENFILE:
    case EFBIG:
        return ErrorCode::resource_exhausted;
    case EAGAIN:
    case ECONNREFUSED:
    case ECONNRESET:
    case EPIPE:
        return ErrorCode::unavailable;
    case ETIMEDOUT:
        return ErrorCode::timeout;
    case ENOSYS:
    case EOPNOTSUPP:
        return ErrorCode::unsupported;
    default:
        return ErrorCode::io_error;
    }
}

} // namespace

std::string_view to_string(ErrorCode code) noexcept {
    switch (code) {
    case ErrorCode::invalid_argument:
        return "invalid_argument";
    case ErrorCode::not_found:
        return "not_found";
    case ErrorCode::already_exists:
        return "already_exists";
    case ErrorCode::wrong_state:
        return "wrong_state";
    case ErrorCode::permission_denied:
        return "permission_denied";
    case ErrorCode::unavailable:
        return "unavailable";
    case ErrorCode::resource_exhausted:
        return "resource_exhausted";
    case ErrorCode::timeout:
        return "timeout";
    case ErrorCode::unsupported:
        return "unsupported";
    case ErrorCode::io_error:
        return "io_error";
    case ErrorCode::corrupt_data:
        return "corrupt_data";
    case ErrorCode::internal:
        return "internal";
    }
    return "internal";
}

std::string Error::describe() const {
    return hint.empty() ? message : message + " (" + hint + ")";
}

tl::unexpected<Error> fail_errno(std::string_view what, int saved_errno, std::string hint) {
    std::string message(what);
    message += ": ";
    message += std::strerror(saved_errno); // NOLINT(concurrency-mt-unsafe): glibc's is safe.
    return tl::unexpected<Error>(
        Error{code_for_errno(saved_errno), std::move(message), std::move(hint), saved_errno});
}

void abort_on_bug(const char* file, int line, const char* condition) noexcept {
    std::fprintf(stderr, "host_runner: bug: %s:%d: %s does not hold\n", file, line, condition);
    std::abort();
}

} // namespace host_runner

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// What every fallible function of the project returns, and the words for why it failed.
///
///     Result<UniqueFd> open_lock(const std::string& path);
///
///     Result<void> start(const std::string& path) {
///         HR_TRY(auto lock, open_lock(path));   // returns the error upwards
///         HR_CHECK(write_record(lock));
///         return {};
///     }

#include <string>
#include <string_view>
#include <utility>

#include <tl/expected.hpp>

namespace host_runner {

/// Why something failed, in the terms a caller can act on. The most specific one wins.
enum class ErrorCode {
    invalid_argument,   ///< The request itself is wrong: an option, a compose file, a message.
    not_found,          ///< The thing named does not exist.
    already_exists,     ///< The thing to be created or claimed is there or held by somebody else.
    wrong_state,        ///< The thing exists but its state does not allow the request.
    permission_denied,  ///< The system refuses this user.
    unavailable,        ///< A peer does not answer now; trying again may help.
    resource_exhausted, ///< Disk, memory, ports, CIDs, hugepages: none left.
    timeout,            ///< A deadline passed.
    unsupported,        ///< This host, QEMU or build lacks the feature.
    io_error,           ///< The operating system failed a read, write or system call.
    corrupt_data,       ///< Bytes from outside do not have the form or digest they must have.
    internal,           ///< A bug of ours.
};

/// The name as used in JSON output, e.g. "not_found".
[[nodiscard]] std::string_view to_string(ErrorCode code) noexcept;

/// A failure: what failed (path, value, errno text), and what the user can do about it.
struct Error {
    ErrorCode code = ErrorCode::internal;
    std::string message; ///< Sentence case, no final full stop; names the thing and the cause.
    std::string hint;    ///< The next step for the user; may be empty.
    int sys_errno = 0;   ///< errno where a system call failed, else 0.

    /// "message (hint)" on one line, for logs and the command line.
    [[nodiscard]] std::string describe() const;
};

template <class T>
using Result = tl::expected<T, Error>;

/// The error value of a Result: `return fail(ErrorCode::not_found, "...", "...");`
[[nodiscard]] inline tl::unexpected<Error> fail(ErrorCode code, std::string message,
                                                std::string hint = {}) {
    return tl::unexpected<Error>(Error{code, std::move(message), std::move(hint), 0});
}

/// The error of a failed system call: chooses the code from `saved_errno` and adds its text.
[[nodiscard]] tl::unexpected<Error> fail_errno(std::string_view what, int saved_errno,
                                               std::string hint = {});

/// Programmer errors end the process with file and line; environment errors never come here.
[[noreturn]] void abort_on_bug(const char* file, int line, const char* condition) noexcept;

} // namespace host_runner

#define HOST_RUNNER_CONCAT_INNER(a, b) a##b
#define HOST_RUNNER_CONCAT(a, b) HOST_RUNNER_CONCAT_INNER(a, b)

// NOLINTBEGIN(bugprone-macro-parentheses): a declaration cannot stand in parentheses.
#define HOST_RUNNER_TRY_IMPL(tmp, declaration, expression)                                         \
    auto tmp = (expression);                                                                       \
    if (!tmp)                                                                                      \
        return tl::unexpected<::host_runner::Error>(std::move(tmp).error());                       \
    declaration = std::move(*tmp)

/// `HR_TRY(auto value, expression);` declares value, or returns the expression's error.
#define HR_TRY(declaration, ...)                                                                   \
    HOST_RUNNER_TRY_IMPL(HOST_RUNNER_CONCAT(hr_try_, __LINE__), declaration, (__VA_ARGS__))

/// `HR_CHECK(expression);` returns the error of a Result<void> (or drops a value).
#define HR_CHECK(...)                                                                              \
    do {                                                                                           \
        if (auto hr_check = (__VA_ARGS__); !hr_check)                                              \
            return tl::unexpected<::host_runner::Error>(std::move(hr_check).error());              \
    } while (false)

#define HR_ASSERT(condition)                                                                       \
    do {                                                                                           \
        if (!(condition))                                                                          \
            ::host_runner::abort_on_bug(__FILE__, __LINE__, #condition);                           \
    } while (false)
// NOLINTEND(bugprone-macro-parentheses)

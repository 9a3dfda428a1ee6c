// SPDX-License-Identifier: Apache-2.0
#pragma once

/// How a function of preview 1 ends: a value, an errno for the guest, or a trap.

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include <tl/expected.hpp>

#include "host_runner/wasm/host_function.hpp"

namespace host_runner::wasm::wasi {

/// Source: WebAssembly/WASI, wasi_snapshot_preview1.witx ($errno)
enum class Errno : std::uint16_t {
    success = 0,
    too_big = 1,
    acces = 2,
    addrinuse = 3,
    addrnotavail = 4,
    again = 6,
    badf = 8,
    busy = 10,
    connaborted = 13,
    connrefused = 14,
    connreset = 15,
    dquot = 19,
    exist = 20,
    fault = 21,
    fbig = 22,
    hostunreach = 23,
    ilseq = 25,
    intr = 27,
    inval = 28,
    io = 29,
    isdir = 31,
    loop = 32,
    mfile = 33,
    mlink = 34,
    nametoolong = 37,
    netunreach = 40,
    nfile = 41,
    nobufs = 42,
    noent = 44,
    nomem = 48,
    nospc = 51,
    nosys = 52,
    notconn = 53,
    notdir = 54,
    notempty = 55,
    notsock = 57,
    notsup = 58,
    nxio = 60,
    overflow = 61,
    perm = 63,
    pipe = 64,
    proto = 65,
    rofs = 69,
    spipe = 70,
    stale = 72,
    timedout = 73,
    txtbsy = 74,
    xdev = 75,
    notcapable = 76,
};

/// The guest's number for an errno of Linux; IO for those it has none for.
[[nodiscard]] Errno from_host_errno(int host_errno) noexcept;

/// An errno for the guest, or, when `trap` is set, the end of the guest.
struct Failure {
    Errno code = Errno::success;
    std::optional<Trap> trap = {};
};

template <class T = void>
using Answer = tl::expected<T, Failure>;

[[nodiscard]] inline tl::unexpected<Failure> refuse(Errno code) {
    return tl::unexpected<Failure>(Failure{code});
}

/// `errno` must still be that of the failed call.
[[nodiscard]] tl::unexpected<Failure> refuse_errno();

[[nodiscard]] inline tl::unexpected<Failure> end_guest(TrapReason reason, std::string message) {
    return tl::unexpected<Failure>(Failure{Errno::success, Trap{reason, std::move(message)}});
}

} // namespace host_runner::wasm::wasi

#define WASI_CONCAT_INNER(a, b) a##b
#define WASI_CONCAT(a, b) WASI_CONCAT_INNER(a, b)

// NOLINTBEGIN(bugprone-macro-parentheses): a declaration cannot stand in parentheses.
#define WASI_TRY_IMPL(tmp, declaration, expression)                                                \
    auto tmp = (expression);                                                                       \
    if (!tmp)                                                                                      \
        return tl::unexpected<::host_runner::wasm::wasi::Failure>(std::move(tmp).error());         \
    declaration = std::move(*tmp)

/// As HR_TRY, for an Answer.
#define WASI_TRY(declaration, ...)                                                                 \
    WASI_TRY_IMPL(WASI_CONCAT(wasi_try_, __LINE__), declaration, (__VA_ARGS__))

/// As HR_CHECK, for an Answer.
#define WASI_CHECK(...)                                                                            \
    do {                                                                                           \
        if (auto wasi_check = (__VA_ARGS__); !wasi_check)                                          \
            return tl::unexpected<::host_runner::wasm::wasi::Failure>(                             \
                std::move(wasi_check).error());                                                    \
    } while (false)
// NOLINTEND(bugprone-macro-parentheses)

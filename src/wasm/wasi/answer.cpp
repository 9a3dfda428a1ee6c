// SPDX-License-Identifier: Apache-2.0
#include "answer.hpp"

#include <array>
#include <cerrno>

namespace host_runner::wasm::wasi {

namespace {

struct Pair {
    int host;
    Errno guest;
};

constexpr std::array numbers{
    Pair{E2BIG, Errno::too_big},
    Pair{EACCES, Errno::acces},
    Pair{EADDRINUSE, Errno::addrinuse},
    Pair{EADDRNOTAVAIL, Errno::addrnotavail},
    Pair{EAGAIN, Errno::again},
    Pair{EBADF, Errno::badf},
    Pair{EBUSY, Errno::busy},
    Pair{ECONNABORTED, Errno::connaborted},
    Pair{ECONNREFUSED, Errno::connrefused},
    Pair{ECONNRESET, Errno::connreset},
    Pair{EDQUOT, Errno::dquot},
    Pair{EEXIST, Errno::exist},
    Pair{EFAULT, Errno::fault},
    Pair{EFBIG, Errno::fbig},
    Pair{EHOSTUNREACH, Errno::hostunreach},
    Pair{EILSEQ, Errno::ilseq},
    Pair{EINTR, Errno::intr},
    Pair{EINVAL, Errno::inval},
    Pair{EISDIR, Errno::isdir},
    Pair{ELOOP, Errno::loop},
    Pair{EMFILE, Errno::mfile},
    Pair{EMLINK, Errno::mlink},
    Pair{ENAMETOOLONG, Errno::nametoolong},
    Pair{ENETUNREACH, Errno::netunreach},
    Pair{ENFILE, Errno::nfile},
    Pair{ENOBUFS, Errno::nobufs},
    Pair{ENOENT, Errno::noent},
    Pair{ENOMEM, Errno::nomem},
    Pair{ENOSPC, Errno::nospc},
    Pair{ENOSYS, Errno::nosys},
    Pair{ENOTCONN, Errno::notconn},
    Pair{ENOTDIR, Errno::notdir},
    Pair{ENOTEMPTY, Errno::notempty},
    Pair{ENOTSOCK, Errno::notsock},
    Pair{EOPNOTSUPP, Errno::notsup},
    Pair{ENXIO, Errno::nxio},
    Pair{EOVERFLOW, Errno::overflow},
    Pair{EPERM, Errno::perm},
    Pair{EPIPE, Errno::pipe},
    Pair{EPROTO, Errno::proto},
    Pair{EROFS, Errno::rofs},
    Pair{ESPIPE, Errno::spipe},
    Pair{ESTALE, Errno::stale},
    Pair{ETIMEDOUT, Errno::timedout},
    Pair{ETXTBSY, Errno::txtbsy},
    Pair{EXDEV, Errno::xdev},
};

} // namespace

Errno from_host_errno(int host_errno) noexcept {
    for (const auto& pair : numbers)
        if (pair.host == host_errno)
            return pair.guest;
    return Errno::io;
}

tl::unexpected<Failure> refuse_errno() {
    return refuse(from_host_errno(errno));
}

} // namespace host_runner::wasm::wasi

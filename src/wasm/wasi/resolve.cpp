// SPDX-License-Identifier: Apache-2.0
#include "resolve.hpp"

#include <cerrno>

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace host_runner::wasm::wasi {

namespace {

/// Somebody who renames all the time must not keep us here; one look takes some microseconds.
constexpr int max_attempts = 1000;

int openat2(int folder, const std::string& path, const open_how& how) {
    return static_cast<int>(::syscall(SYS_openat2, folder, path.c_str(), &how, sizeof how));
}

bool is_dots(const std::string& name) {
    return name == "." || name == "..";
}

} // namespace

Answer<UniqueFd> open_beneath(const Folder& folder, const std::string& path, int flags,
                              LastLink last, mode_t mode) {
    open_how how{};
    how.flags = static_cast<std::uint64_t>(
        static_cast<unsigned>(flags | O_CLOEXEC | (last == LastLink::keep ? O_NOFOLLOW : 0)));
    how.mode = mode;
    how.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS;
    for (int attempt = 1;; ++attempt) {
        UniqueFd fd(openat2(folder.fd.get(), path, how));
        if (fd)
            return fd;
        if (errno == EXDEV) // what RESOLVE_BENEATH calls an escape; guests know EXDEV from rename
            return refuse(Errno::perm);
        if ((errno != EAGAIN && errno != EINTR) || attempt == max_attempts)
            return refuse_errno();
    }
}

Answer<Place> find_place(const Folder& folder, std::string path, Errno for_dots) {
    if (path.empty())
        return refuse(Errno::noent);
    if (path.front() == '/')
        return refuse(Errno::perm);
    Place place;
    const auto end = path.find_last_not_of('/') + 1;
    place.trailing_slash = end < path.size();
    path.resize(end);
    const auto slash = path.rfind('/');
    place.name = slash == std::string::npos ? path : path.substr(slash + 1);
    if (is_dots(place.name)) {
        WASI_CHECK(open_beneath(folder, path, O_PATH | O_DIRECTORY, LastLink::keep));
        return refuse(for_dots);
    }
    const auto parent = slash == std::string::npos ? "." : path.substr(0, slash);
    WASI_TRY(place.parent, open_beneath(folder, parent, O_PATH | O_DIRECTORY, LastLink::follow));
    return place;
}

Answer<void> refuse_trailing_slash(const Place& place, Errno for_directory) {
    if (!place.trailing_slash)
        return {};
    struct stat status {};
    if (::fstatat(place.parent.get(), place.name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0)
        return refuse_errno();
    return refuse(S_ISDIR(status.st_mode) ? for_directory : Errno::notdir);
}

} // namespace host_runner::wasm::wasi

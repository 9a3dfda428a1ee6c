// SPDX-License-Identifier: Apache-2.0
// Opening, making, moving and removing by path.
#include <algorithm>
#include <array>
#include <climits>
#include <string_view>

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "calls.hpp"
#include "path_arguments.hpp"

namespace host_runner::wasm::wasi::calls {

namespace {

/// What path_open is asked for.
struct OpenRequest {
    LastLink last = LastLink::keep;
    std::uint16_t open_flags = 0;
    std::uint16_t fd_flags = 0;
    bool read = false;
    bool write = false;

    [[nodiscard]] bool wants(std::uint16_t flag) const noexcept {
        return (open_flags & flag) != 0;
    }
    [[nodiscard]] bool changes() const noexcept {
        return write || wants(layout::open_flags::create) || wants(layout::open_flags::truncate);
    }
};

Answer<OpenRequest> open_request(const Call& call) {
    OpenRequest request;
    WASI_TRY(request.last, lookup_argument(call, 1));
    WASI_TRY(request.open_flags, call.flags(4, layout::open_flags::all));
    WASI_TRY(request.fd_flags, call.flags(7, layout::fd_flags::all));
    request.read = (call.u64(5) & layout::rights::read) != 0;
    request.write = (call.u64(5) & layout::rights::write) != 0;
    // Linux before 6.3 makes a regular file of it.
    if (request.wants(layout::open_flags::create) && request.wants(layout::open_flags::directory))
        return refuse(Errno::inval);
    // open(2): a link at the end is something that is there, wherever it leads.
    if (request.wants(layout::open_flags::create) && request.wants(layout::open_flags::exclusive))
        request.last = LastLink::keep;
    return request;
}

int host_flags(const OpenRequest& request) {
    // Truncation needs the host's right to write even where the guest does not want to.
    const bool write = request.write || request.wants(layout::open_flags::truncate);
    int flags = !write ? O_RDONLY : request.read ? O_RDWR : O_WRONLY;
    // Should a device or FIFO get here by a race, opening it must not wait or take a terminal.
    flags |= O_NOCTTY | O_NONBLOCK;
    flags |= request.wants(layout::open_flags::create) ? O_CREAT : 0;
    flags |= request.wants(layout::open_flags::exclusive) ? O_EXCL : 0;
    flags |= request.wants(layout::open_flags::truncate) ? O_TRUNC : 0;
    flags |= request.wants(layout::open_flags::directory) ? O_DIRECTORY : 0;
    constexpr auto whole = layout::fd_flags::sync | layout::fd_flags::rsync;
    flags |= (request.fd_flags & whole) != 0 ? O_SYNC : 0;
    flags |= (request.fd_flags & layout::fd_flags::dsync) != 0 ? O_DSYNC : 0;
    return flags;
}

/// Refuses what is no file or directory. LOOP: a link that is not to be followed
Answer<void> check_kind(mode_t mode) {
    if (S_ISREG(mode) || S_ISDIR(mode))
        return {};
    return refuse(S_ISLNK(mode) ? Errno::loop : Errno::notsup);
}

Answer<mode_t> mode_of(const UniqueFd& fd) {
    struct stat status {};
    if (::fstat(fd.get(), &status) != 0)
        return refuse_errno();
    return status.st_mode;
}

/// Looks without opening: to open a device can already do something.
Answer<void> look_first(const Folder& folder, const std::string& path, const OpenRequest& request) {
    const auto found = open_beneath(folder, path, O_PATH, request.last);
    const bool may_be_missing = request.wants(layout::open_flags::create);
    if (!found && !found.error().trap && found.error().code == Errno::noent && may_be_missing)
        return {};
    if (!found)
        return tl::unexpected<Failure>(found.error());
    WASI_TRY(const auto mode, mode_of(*found));
    if (request.wants(layout::open_flags::exclusive) && may_be_missing)
        return refuse(Errno::exist);
    return check_kind(mode);
}

Answer<Entry> open_entry(const Folder& folder, const std::string& path,
                         const OpenRequest& request) {
    constexpr mode_t new_file_mode = 0666; // the umask of the process decides
    WASI_CHECK(look_first(folder, path, request));
    const mode_t mode = request.wants(layout::open_flags::create) ? new_file_mode : 0;
    WASI_TRY(auto fd, open_beneath(folder, path, host_flags(request), request.last, mode));
    WASI_TRY(const auto kind, mode_of(fd));
    WASI_CHECK(check_kind(kind));
    if (S_ISDIR(kind))
        return Entry{Folder{std::move(fd), std::nullopt, folder.access}, request.fd_flags};
    return Entry{RegularFile{std::move(fd), 0, request.read, request.write, folder.access},
                 request.fd_flags};
}

/// The name's own kind, a link not followed.
Answer<void> require_directory(const Place& place) {
    struct stat status {};
    if (::fstatat(place.parent.get(), place.name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0)
        return refuse_errno();
    if (!S_ISDIR(status.st_mode))
        return refuse(Errno::notdir);
    return {};
}

} // namespace

Answer<void> path_open(Call& call) {
    WASI_TRY(const auto number, call.memory.slot<std::uint32_t>(call.u32(8)));
    WASI_TRY(const auto path, path_argument(call, 2));
    WASI_TRY(const auto* const folder, folder_argument(call, 0));
    WASI_TRY(const auto request, open_request(call));
    if (request.changes() && folder->access != Access::read_write)
        return refuse(Errno::perm);
    WASI_CHECK(call.state.files.check_room());
    WASI_TRY(auto entry, open_entry(*folder, path, request));
    WASI_TRY(const auto fd, call.state.files.insert(std::move(entry)));
    number.set(fd);
    return {};
}

Answer<void> path_create_directory(Call& call) {
    constexpr mode_t new_directory_mode = 0777; // the umask of the process decides
    WASI_TRY(auto path, path_argument(call, 1));
    WASI_TRY(const auto* const folder, writable_folder_argument(call, 0));
    WASI_TRY(const auto place, find_place(*folder, std::move(path), Errno::exist));
    if (::mkdirat(place.parent.get(), place.name.c_str(), new_directory_mode) != 0)
        return refuse_errno();
    return {};
}

Answer<void> path_remove_directory(Call& call) {
    WASI_TRY(auto path, path_argument(call, 1));
    WASI_TRY(const auto* const folder, writable_folder_argument(call, 0));
    WASI_TRY(const auto place, find_place(*folder, std::move(path), Errno::inval));
    if (::unlinkat(place.parent.get(), place.name.c_str(), AT_REMOVEDIR) != 0)
        return refuse_errno();
    return {};
}

Answer<void> path_unlink_file(Call& call) {
    WASI_TRY(auto path, path_argument(call, 1));
    WASI_TRY(const auto* const folder, writable_folder_argument(call, 0));
    WASI_TRY(const auto place, find_place(*folder, std::move(path), Errno::isdir));
    WASI_CHECK(refuse_trailing_slash(place, Errno::isdir));
    if (::unlinkat(place.parent.get(), place.name.c_str(), 0) != 0)
        return refuse_errno();
    return {};
}

Answer<void> path_link(Call& call) {
    WASI_TRY(auto from_path, path_argument(call, 2));
    WASI_TRY(auto to_path, path_argument(call, 5));
    // A link from a read-only directory into a writable one would open its file for writing.
    WASI_TRY(const auto* const from_folder, writable_folder_argument(call, 0));
    WASI_TRY(const auto* const to_folder, writable_folder_argument(call, 4));
    WASI_TRY(const auto last, lookup_argument(call, 1));
    if (last == LastLink::follow)
        return refuse(Errno::inval);
    WASI_TRY(const auto from, find_place(*from_folder, std::move(from_path), Errno::perm));
    WASI_TRY(const auto to, find_place(*to_folder, std::move(to_path), Errno::exist));
    WASI_CHECK(refuse_trailing_slash(from, Errno::perm));
    WASI_CHECK(refuse_trailing_slash(to, Errno::exist));
    if (::linkat(from.parent.get(), from.name.c_str(), to.parent.get(), to.name.c_str(), 0) != 0)
        return refuse_errno();
    return {};
}

Answer<void> path_rename(Call& call) {
    WASI_TRY(auto from_path, path_argument(call, 1));
    WASI_TRY(auto to_path, path_argument(call, 4));
    WASI_TRY(const auto* const from_folder, writable_folder_argument(call, 0));
    WASI_TRY(const auto* const to_folder, writable_folder_argument(call, 3));
    WASI_TRY(const auto from, find_place(*from_folder, std::move(from_path), Errno::busy));
    WASI_TRY(const auto to, find_place(*to_folder, std::move(to_path), Errno::busy));
    if (from.trailing_slash || to.trailing_slash)
        WASI_CHECK(require_directory(from));
    if (::renameat(from.parent.get(), from.name.c_str(), to.parent.get(), to.name.c_str()) != 0)
        return refuse_errno();
    return {};
}

Answer<void> path_readlink(Call& call) {
    WASI_TRY(const auto used, call.memory.slot<std::uint32_t>(call.u32(5)));
    WASI_TRY(const auto into, call.memory.bytes(call.u32(3), call.u32(4)));
    WASI_TRY(auto path, path_argument(call, 1));
    WASI_TRY(const auto* const folder, folder_argument(call, 0));
    WASI_TRY(const auto place, find_place(*folder, std::move(path), Errno::inval));
    WASI_CHECK(refuse_trailing_slash(place, Errno::inval));
    std::array<char, PATH_MAX> target{};
    const auto size =
        ::readlinkat(place.parent.get(), place.name.c_str(), target.data(), target.size());
    if (size < 0)
        return refuse_errno();
    // An absolute target is a path of the host, which is not the guest's business.
    if (size > 0 && target.front() == '/')
        return refuse(Errno::perm);
    const auto count = std::min(static_cast<std::size_t>(size), into.size());
    std::copy_n(reinterpret_cast<const std::byte*>(target.data()), count, into.begin());
    used.set(static_cast<std::uint32_t>(count));
    return {};
}

Answer<void> path_symlink(Call& call) {
    WASI_TRY(const auto target, path_argument(call, 0));
    WASI_TRY(auto path, path_argument(call, 3));
    WASI_TRY(const auto* const folder, writable_folder_argument(call, 2));
    if (!target.empty() && target.front() == '/')
        return refuse(Errno::perm);
    WASI_TRY(const auto place, find_place(*folder, std::move(path), Errno::exist));
    WASI_CHECK(refuse_trailing_slash(place, Errno::exist));
    if (::symlinkat(target.c_str(), place.parent.get(), place.name.c_str()) != 0)
        return refuse_errno();
    return {};
}

} // namespace host_runner::wasm::wasi::calls

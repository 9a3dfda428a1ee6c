// SPDX-License-Identifier: Apache-2.0
// Size, times and identity of files, by descriptor and by path.
#include <algorithm>
#include <array>
#include <limits>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "calls.hpp"
#include "file_stat.hpp"
#include "path_arguments.hpp"

namespace host_runner::wasm::wasi::calls {

namespace {

constexpr std::uint32_t filestat_align = 8;

timespec time_of(std::uint64_t nanoseconds_since_1970) {
    constexpr std::uint64_t per_second = 1'000'000'000;
    return {static_cast<time_t>(nanoseconds_since_1970 / per_second),
            static_cast<long>(nanoseconds_since_1970 % per_second)};
}

/// Access and modification time as utimensat wants them, from arguments `index` to `index + 2`.
/// INVAL: a value together with its "now", or an unknown flag
Answer<std::array<timespec, 2>> times_argument(const Call& call, std::size_t index) {
    namespace flag = layout::time_flags;
    WASI_TRY(const auto flags, call.flags(index + 2, flag::all));
    const auto choose = [flags](std::uint16_t value, std::uint16_t now, std::uint64_t time) {
        if ((flags & now) != 0)
            return timespec{0, UTIME_NOW};
        return (flags & value) != 0 ? time_of(time) : timespec{0, UTIME_OMIT};
    };
    constexpr auto both_of_access = flag::access | flag::access_now;
    constexpr auto both_of_modification = flag::modification | flag::modification_now;
    if ((flags & both_of_access) == both_of_access ||
        (flags & both_of_modification) == both_of_modification)
        return refuse(Errno::inval);
    return std::array{choose(flag::access, flag::access_now, call.u64(index)),
                      choose(flag::modification, flag::modification_now, call.u64(index + 1))};
}

/// The host's descriptor of a file or directory, else -1.
int host_file(const Entry& entry) {
    if (const auto* const file = std::get_if<RegularFile>(&entry.object))
        return file->fd.get();
    if (const auto* const folder = std::get_if<Folder>(&entry.object))
        return folder->fd.get();
    return -1;
}

Access access_of(const Entry& entry) {
    if (const auto* const file = std::get_if<RegularFile>(&entry.object))
        return file->access;
    if (const auto* const folder = std::get_if<Folder>(&entry.object))
        return folder->access;
    return Access::read_only;
}

} // namespace

Answer<void> fd_filestat_get(Call& call) {
    WASI_TRY(const auto place,
             call.memory.bytes(call.u32(1), layout::filestat_bytes, filestat_align));
    WASI_TRY(const auto* const entry, call.file(0));
    struct stat status {};
    if (const int fd = host_file(*entry); fd >= 0) {
        if (::fstat(fd, &status) != 0)
            return refuse_errno();
        store_filestat(call.state, place, status);
        return {};
    }
    // A stream has a type and nothing else that is the guest's business.
    std::fill(place.begin(), place.end(), std::byte{0});
    store(place, 16, static_cast<std::uint8_t>(file_type(*entry)));
    return {};
}

Answer<void> fd_filestat_set_size(Call& call) {
    WASI_TRY(auto* const entry, call.file(0));
    const auto* const file = entry->as<RegularFile>();
    if (file == nullptr)
        return refuse(Errno::badf);
    if (!file->can_write)
        return refuse(Errno::perm);
    if (call.u64(1) > std::uint64_t{std::numeric_limits<std::int64_t>::max()})
        return refuse(Errno::inval);
    if (::ftruncate(file->fd.get(), static_cast<off_t>(call.u64(1))) != 0)
        return refuse_errno();
    return {};
}

Answer<void> fd_filestat_set_times(Call& call) {
    WASI_TRY(const auto* const entry, call.file(0));
    WASI_TRY(const auto times, times_argument(call, 1));
    const int fd = host_file(*entry);
    if (fd < 0)
        return refuse(Errno::badf);
    if (access_of(*entry) != Access::read_write)
        return refuse(Errno::perm);
    if (::futimens(fd, times.data()) != 0)
        return refuse_errno();
    return {};
}

Answer<void> path_filestat_get(Call& call) {
    WASI_TRY(const auto place,
             call.memory.bytes(call.u32(4), layout::filestat_bytes, filestat_align));
    WASI_TRY(const auto path, path_argument(call, 2));
    WASI_TRY(const auto* const folder, folder_argument(call, 0));
    WASI_TRY(const auto last, lookup_argument(call, 1));
    WASI_TRY(const auto found, open_beneath(*folder, path, O_PATH, last));
    struct stat status {};
    if (::fstat(found.get(), &status) != 0)
        return refuse_errno();
    store_filestat(call.state, place, status);
    return {};
}

Answer<void> path_filestat_set_times(Call& call) {
    WASI_TRY(const auto path, path_argument(call, 2));
    WASI_TRY(const auto* const folder, writable_folder_argument(call, 0));
    WASI_TRY(const auto last, lookup_argument(call, 1));
    WASI_TRY(const auto times, times_argument(call, 4));
    WASI_TRY(const auto found, open_beneath(*folder, path, O_PATH, last));
    // Linux 5.8 and later take the empty path for the descriptor itself, also an O_PATH one.
    if (::utimensat(found.get(), "", times.data(), AT_EMPTY_PATH) != 0)
        return refuse_errno();
    return {};
}

} // namespace host_runner::wasm::wasi::calls

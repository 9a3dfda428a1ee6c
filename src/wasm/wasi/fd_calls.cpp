// SPDX-License-Identifier: Apache-2.0
// What a descriptor is and where it stands.
#include <algorithm>
#include <array>
#include <chrono>
#include <limits>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "calls.hpp"
#include "file_stat.hpp"
#include "stream_io.hpp"

namespace host_runner::wasm::wasi::calls {

namespace {

constexpr std::uint64_t max_offset = std::numeric_limits<std::int64_t>::max();

/// How long a guest that closes a TLS stream may wait for a peer that does not read.
constexpr std::chrono::seconds close_patience{1};

TimePoint close_limit() {
    return std::chrono::steady_clock::now() + close_patience;
}

struct Rights {
    std::uint64_t base = 0;
    std::uint64_t inheriting = 0;
};

constexpr std::uint64_t stream_rights =
    layout::rights::set_flags | layout::rights::fd_stat | layout::rights::poll;

/// What the guest may expect to work. C libraries tell O_RDONLY from O_RDWR by it, mask the rights
/// of what they open by a directory's inheriting ones, and take for a terminal what cannot seek.
struct RightsOf {
    Rights operator()(const NullFile& /*file*/) const {
        return {stream_rights | layout::rights::read | layout::rights::write};
    }
    Rights operator()(const InputBytes& /*file*/) const {
        return {stream_rights | layout::rights::read};
    }
    Rights operator()(const CaptureOut& /*file*/) const {
        return {stream_rights | layout::rights::write};
    }
    Rights operator()(const HostStream& file) const {
        const int mode = ::fcntl(file.fd.get(), F_GETFL) & O_ACCMODE;
        return {stream_rights | (mode != O_WRONLY ? layout::rights::read : 0) |
                (mode != O_RDONLY ? layout::rights::write : 0)};
    }
    Rights operator()(const Folder& file) const {
        Rights all{layout::rights::any_directory,
                   layout::rights::any_directory | layout::rights::any_file | layout::rights::read};
        if (file.access == Access::read_write) {
            all.base |= layout::rights::change_directory;
            all.inheriting |= layout::rights::change_directory | layout::rights::change_file |
                              layout::rights::write;
        }
        return all;
    }
    Rights operator()(const RegularFile& file) const {
        return {layout::rights::any_file | (file.can_read ? layout::rights::read : 0) |
                (file.can_write ? layout::rights::write | layout::rights::change_file : 0)};
    }
    Rights operator()(const Listener& /*file*/) const {
        return {stream_rights | layout::rights::accept};
    }
    Rights operator()(const Stream& /*file*/) const {
        return {stream_rights | layout::rights::read | layout::rights::write |
                layout::rights::shutdown};
    }
};

/// SPIPE for streams, BADF for directories.
Answer<RegularFile*> seekable(Entry& entry) {
    if (auto* const file = entry.as<RegularFile>())
        return file;
    return refuse(entry.as<Folder>() != nullptr ? Errno::badf : Errno::spipe);
}

template <int (*operation)(int)>
Answer<void> synchronize(Call& call) {
    WASI_TRY(auto* const entry, call.file(0));
    int fd = -1;
    if (const auto* const file = entry->as<RegularFile>())
        fd = file->fd.get();
    else if (const auto* const folder = entry->as<Folder>())
        fd = folder->fd.get();
    if (fd < 0)
        return refuse(Errno::badf);
    if (operation(fd) != 0)
        return refuse_errno();
    return {};
}

Answer<const Folder*> preopen(Call& call, Errno otherwise) {
    WASI_TRY(auto* const entry, call.file(0));
    const auto* const folder = entry->as<Folder>();
    if (folder == nullptr || !folder->preopen_name)
        return refuse(otherwise);
    return folder;
}

/// Where `offset` counts from. INVAL: no such origin
Answer<std::uint64_t> origin(const RegularFile& file, std::uint32_t whence) {
    switch (whence) {
    case 0:
        return 0;
    case 1:
        return file.offset;
    case 2: {
        struct stat status {};
        if (::fstat(file.fd.get(), &status) != 0)
            return refuse_errno();
        return static_cast<std::uint64_t>(status.st_size);
    }
    default:
        return refuse(Errno::inval);
    }
}

} // namespace

Answer<void> fd_advise(Call& call) {
    constexpr std::uint32_t advice_count = 6;
    WASI_TRY(auto* const entry, call.file(0));
    WASI_TRY(const auto* const file, seekable(*entry));
    if (call.u32(3) >= advice_count || call.u64(1) > max_offset || call.u64(2) > max_offset)
        return refuse(Errno::inval);
    constexpr std::array<int, advice_count> advices{POSIX_FADV_NORMAL,   POSIX_FADV_SEQUENTIAL,
                                                    POSIX_FADV_RANDOM,   POSIX_FADV_WILLNEED,
                                                    POSIX_FADV_DONTNEED, POSIX_FADV_NOREUSE};
    // A hint: that a file system ignores it is no error.
    static_cast<void>(::posix_fadvise(file->fd.get(), static_cast<off_t>(call.u64(1)),
                                      static_cast<off_t>(call.u64(2)), advices[call.u32(3)]));
    return {};
}

Answer<void> fd_allocate(Call& call) {
    WASI_CHECK(call.file(0));
    return refuse(Errno::notsup);
}

Answer<void> fd_close(Call& call) {
    WASI_CHECK(call.file(0));
    const auto closed = call.state.files.take(call.u32(0));
    close_orderly(call.state.deadline, *closed, close_limit());
    return {};
}

Answer<void> fd_datasync(Call& call) {
    return synchronize<::fdatasync>(call);
}

Answer<void> fd_sync(Call& call) {
    return synchronize<::fsync>(call);
}

Answer<void> fd_fdstat_get(Call& call) {
    constexpr std::uint32_t align = 8;
    WASI_TRY(const auto place, call.memory.bytes(call.u32(1), layout::fdstat_bytes, align));
    WASI_TRY(const auto* const entry, call.file(0));
    const auto rights = std::visit(RightsOf{}, entry->object);
    std::fill(place.begin(), place.end(), std::byte{0});
    store(place, 0, static_cast<std::uint8_t>(file_type(*entry)));
    store(place, 2, entry->flags);
    store(place, 8, rights.base);
    store(place, 16, rights.inheriting);
    return {};
}

Answer<void> fd_fdstat_set_flags(Call& call) {
    WASI_TRY(auto* const entry, call.file(0));
    constexpr std::uint16_t settable = layout::fd_flags::append | layout::fd_flags::nonblock;
    WASI_TRY(const auto flags, call.flags(1, settable));
    // How a file synchronizes was fixed when it was opened.
    entry->flags = static_cast<std::uint16_t>((entry->flags & ~settable) | flags);
    return {};
}

Answer<void> fd_fdstat_set_rights(Call& call) {
    WASI_CHECK(call.file(0));
    return refuse(Errno::notsup);
}

Answer<void> fd_prestat_get(Call& call) {
    constexpr std::uint32_t align = 4;
    WASI_TRY(const auto place, call.memory.bytes(call.u32(1), layout::prestat_bytes, align));
    WASI_TRY(const auto* const folder, preopen(call, Errno::badf));
    std::fill(place.begin(), place.end(), std::byte{0}); // tag 0: a directory
    store(place, 4, static_cast<std::uint32_t>(folder->preopen_name->size()));
    return {};
}

Answer<void> fd_prestat_dir_name(Call& call) {
    WASI_TRY(const auto place, call.memory.bytes(call.u32(1), call.u32(2)));
    WASI_TRY(const auto* const folder, preopen(call, Errno::notdir));
    const auto& name = *folder->preopen_name;
    if (place.size() < name.size())
        return refuse(Errno::nametoolong);
    std::copy_n(reinterpret_cast<const std::byte*>(name.data()), name.size(), place.begin());
    return {};
}

Answer<void> fd_renumber(Call& call) {
    WASI_CHECK(call.file(0));
    WASI_CHECK(call.file(1));
    if (call.u32(0) == call.u32(1))
        return {};
    const auto closed = call.state.files.replace(call.u32(0), call.u32(1));
    close_orderly(call.state.deadline, *closed, close_limit());
    return {};
}

Answer<void> fd_seek(Call& call) {
    WASI_TRY(const auto position, call.memory.slot<std::uint64_t>(call.u32(3)));
    WASI_TRY(auto* const entry, call.file(0));
    WASI_TRY(auto* const file, seekable(*entry));
    WASI_TRY(const auto from, origin(*file, call.u32(2)));
    // Neither can be over INT64_MAX, so that a result above it is either negative or an overflow.
    const auto sum = from + call.u64(1);
    if (sum > max_offset)
        return refuse(static_cast<std::int64_t>(call.u64(1)) < 0 ? Errno::inval : Errno::overflow);
    file->offset = sum;
    position.set(sum);
    return {};
}

Answer<void> fd_tell(Call& call) {
    WASI_TRY(const auto position, call.memory.slot<std::uint64_t>(call.u32(1)));
    WASI_TRY(auto* const entry, call.file(0));
    WASI_TRY(const auto* const file, seekable(*entry));
    position.set(file->offset);
    return {};
}

} // namespace host_runner::wasm::wasi::calls

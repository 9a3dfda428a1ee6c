// SPDX-License-Identifier: Apache-2.0
#include "file_stat.hpp"

#include <algorithm>

#include <dirent.h>

#include "clocks.hpp"

namespace host_runner::wasm::wasi {

namespace {

using layout::FileType;

std::uint64_t neutral_device(Context::State& state, dev_t device) {
    constexpr std::size_t max_devices = 64; // what a tree of mounts may hold; the rest is 0
    auto& known = state.devices;
    const auto found = std::find(known.begin(), known.end(), device);
    if (found != known.end())
        return static_cast<std::uint64_t>(found - known.begin()) + 1;
    if (known.size() >= max_devices)
        return 0;
    known.push_back(device);
    return known.size();
}

} // namespace

FileType file_type(mode_t mode) noexcept {
    switch (mode & S_IFMT) {
    case S_IFBLK:
        return FileType::block_device;
    case S_IFCHR:
        return FileType::character_device;
    case S_IFDIR:
        return FileType::directory;
    case S_IFREG:
        return FileType::regular_file;
    case S_IFSOCK:
        return FileType::socket_stream;
    case S_IFLNK:
        return FileType::symbolic_link;
    default:
        return FileType::unknown;
    }
}

FileType file_type(const Entry& entry) noexcept {
    if (std::holds_alternative<Folder>(entry.object))
        return FileType::directory;
    if (std::holds_alternative<RegularFile>(entry.object))
        return FileType::regular_file;
    if (std::holds_alternative<Listener>(entry.object) ||
        std::holds_alternative<Stream>(entry.object))
        return FileType::socket_stream;
    if (const auto* const stream = std::get_if<HostStream>(&entry.object)) {
        struct stat status {};
        if (::fstat(stream->fd.get(), &status) == 0)
            return file_type(status.st_mode);
    }
    return FileType::unknown;
}

FileType file_type_of_entry(unsigned char type) noexcept {
    return file_type(static_cast<mode_t>(DTTOIF(type)));
}

void store_filestat(Context::State& state, std::span<std::byte> place, const struct stat& status) {
    std::fill(place.begin(), place.end(), std::byte{0});
    store(place, 0, neutral_device(state, status.st_dev));
    store(place, 8, static_cast<std::uint64_t>(status.st_ino));
    store(place, 16, static_cast<std::uint8_t>(file_type(status.st_mode)));
    store(place, 24, static_cast<std::uint64_t>(status.st_nlink));
    store(place, 32, static_cast<std::uint64_t>(status.st_size));
    store(place, 40, nanoseconds(status.st_atim));
    store(place, 48, nanoseconds(status.st_mtim));
    store(place, 56, nanoseconds(status.st_ctim));
}

} // namespace host_runner::wasm::wasi

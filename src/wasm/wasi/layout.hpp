// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Numbers and record sizes of preview 1.
/// Source: WebAssembly/WASI, phases/snapshot/witx/{typenames,wasi_snapshot_preview1}.witx

#include <cstdint>

namespace host_runner::wasm::wasi::layout {

inline constexpr std::uint32_t iovec_bytes = 8;
inline constexpr std::uint32_t prestat_bytes = 8;
inline constexpr std::uint32_t fdstat_bytes = 24;
inline constexpr std::uint32_t filestat_bytes = 64;
inline constexpr std::uint32_t dirent_bytes = 24;
inline constexpr std::uint32_t subscription_bytes = 48;
inline constexpr std::uint32_t event_bytes = 32;

enum class FileType : std::uint8_t {
    unknown,
    block_device,
    character_device,
    directory,
    regular_file,
    socket_datagram,
    socket_stream,
    symbolic_link,
};

namespace fd_flags {
inline constexpr std::uint16_t append = 1;
inline constexpr std::uint16_t dsync = 2;
inline constexpr std::uint16_t nonblock = 4;
inline constexpr std::uint16_t rsync = 8;
inline constexpr std::uint16_t sync = 16;
inline constexpr std::uint16_t all = 31;
} // namespace fd_flags

namespace open_flags {
inline constexpr std::uint16_t create = 1;
inline constexpr std::uint16_t directory = 2;
inline constexpr std::uint16_t exclusive = 4;
inline constexpr std::uint16_t truncate = 8;
inline constexpr std::uint16_t all = 15;
} // namespace open_flags

inline constexpr std::uint32_t lookup_follow = 1;

namespace time_flags {
inline constexpr std::uint16_t access = 1;
inline constexpr std::uint16_t access_now = 2;
inline constexpr std::uint16_t modification = 4;
inline constexpr std::uint16_t modification_now = 8;
inline constexpr std::uint16_t all = 15;
} // namespace time_flags

namespace receive_flags {
inline constexpr std::uint16_t peek = 1;
inline constexpr std::uint16_t wait_all = 2;
} // namespace receive_flags

namespace shutdown_flags {
inline constexpr std::uint8_t read = 1;
inline constexpr std::uint8_t write = 2;
} // namespace shutdown_flags

enum class EventType : std::uint8_t { clock, fd_read, fd_write };
inline constexpr std::uint16_t clock_absolute = 1;
inline constexpr std::uint16_t event_hangup = 1;

namespace rights {
inline constexpr std::uint64_t read = std::uint64_t{1} << 1U;
inline constexpr std::uint64_t write = std::uint64_t{1} << 6U;
inline constexpr std::uint64_t set_flags = std::uint64_t{1} << 3U;
inline constexpr std::uint64_t fd_stat = std::uint64_t{1} << 21U;
inline constexpr std::uint64_t poll = std::uint64_t{1} << 27U;
inline constexpr std::uint64_t shutdown = std::uint64_t{1} << 28U;
inline constexpr std::uint64_t accept = std::uint64_t{1} << 29U;
/// datasync, seek, sync, tell, advise, and the stream's set_flags, stat and poll.
inline constexpr std::uint64_t any_file = std::uint64_t{1} << 0U | std::uint64_t{1} << 2U |
                                          std::uint64_t{1} << 4U | std::uint64_t{1} << 5U |
                                          std::uint64_t{1} << 7U | set_flags | fd_stat | poll;
/// allocate, set_size and set_times of a descriptor.
inline constexpr std::uint64_t change_file =
    std::uint64_t{1} << 8U | std::uint64_t{1} << 22U | std::uint64_t{1} << 23U;
/// datasync, sync, open, readdir, readlink, stat of a path and of the descriptor.
inline constexpr std::uint64_t any_directory =
    std::uint64_t{1} << 0U | std::uint64_t{1} << 4U | std::uint64_t{1} << 13U |
    std::uint64_t{1} << 14U | std::uint64_t{1} << 15U | std::uint64_t{1} << 18U | fd_stat;
/// create_directory, create_file, link source and target, rename source and target, set_size and
/// set_times of a path, set_times of a descriptor, symlink, remove, unlink.
inline constexpr std::uint64_t change_directory =
    std::uint64_t{1} << 9U | std::uint64_t{1} << 10U | std::uint64_t{1} << 11U |
    std::uint64_t{1} << 12U | std::uint64_t{1} << 16U | std::uint64_t{1} << 17U |
    std::uint64_t{1} << 19U | std::uint64_t{1} << 20U | std::uint64_t{1} << 23U |
    std::uint64_t{1} << 24U | std::uint64_t{1} << 25U | std::uint64_t{1} << 26U;
} // namespace rights

} // namespace host_runner::wasm::wasi::layout

// SPDX-License-Identifier: Apache-2.0
// fd_readdir. The cookies are the kernel's, so that nothing is kept between calls.
#include <algorithm>
#include <array>
#include <cstddef>
#include <string_view>

#include <dirent.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "calls.hpp"
#include "file_stat.hpp"
#include "path_arguments.hpp"
#include "wait.hpp"

namespace host_runner::wasm::wasi::calls {

namespace {

constexpr std::size_t block_bytes = 32768;

/// One entry as getdents64 gives it (struct linux_dirent64).
struct HostEntry {
    std::uint64_t inode = 0;
    std::uint64_t next = 0;
    unsigned char type = 0;
    std::string_view name;
};

HostEntry take_entry(std::span<const std::byte>& block) {
    constexpr std::size_t next_at = 8;
    constexpr std::size_t size_at = 16;
    constexpr std::size_t type_at = 18;
    constexpr std::size_t name_at = 19;
    HostEntry entry;
    entry.inode = load<std::uint64_t>(block);
    entry.next = load<std::uint64_t>(block, next_at);
    entry.type = load<unsigned char>(block, type_at);
    entry.name = reinterpret_cast<const char*>(block.subspan(name_at).data());
    block = block.subspan(load<std::uint16_t>(block, size_at));
    return entry;
}

/// The guest's buffer, filled from its start.
class Filler {
public:
    explicit Filler(std::span<std::byte> room) : room_(room), size_(room.size()) {}

    /// Cuts what does not fit: the guest sees a full buffer and asks again.
    void add(std::span<const std::byte> bytes) {
        const auto count = std::min(bytes.size(), room_.size());
        std::copy_n(bytes.begin(), count, room_.begin());
        room_ = room_.subspan(count);
    }
    [[nodiscard]] bool is_full() const {
        return room_.empty();
    }
    [[nodiscard]] std::uint32_t used() const {
        return static_cast<std::uint32_t>(size_ - room_.size());
    }

private:
    std::span<std::byte> room_;
    std::size_t size_;
};

void add_entry(Filler& filler, const HostEntry& entry, std::uint64_t own_inode) {
    std::array<std::byte, layout::dirent_bytes> head{};
    store<std::uint64_t>(head, 0, entry.next);
    // The directory above may be outside of what the guest knows of.
    store<std::uint64_t>(head, 8, entry.name == ".." ? own_inode : entry.inode);
    store(std::span<std::byte>(head), 16, static_cast<std::uint32_t>(entry.name.size()));
    store(std::span<std::byte>(head), 20,
          static_cast<std::uint8_t>(file_type_of_entry(entry.type)));
    filler.add(head);
    filler.add(std::as_bytes(std::span(entry.name)));
}

} // namespace

Answer<void> fd_readdir(Call& call) {
    WASI_TRY(const auto used, call.memory.slot<std::uint32_t>(call.u32(4)));
    WASI_TRY(const auto room, call.memory.bytes(call.u32(1), call.u32(2)));
    WASI_TRY(const auto* const folder, folder_argument(call, 0));
    const int fd = folder->fd.get();
    struct stat own {};
    // A cookie that is none is for the file system to refuse; 0 is the start everywhere.
    if (::fstat(fd, &own) != 0 || ::lseek(fd, static_cast<off_t>(call.u64(3)), SEEK_SET) < 0)
        return refuse_errno();
    Filler filler(room);
    alignas(dirent64) std::array<std::byte, block_bytes> bytes{};
    while (!filler.is_full()) {
        WASI_CHECK(check_deadline(call.state.deadline));
        const auto count = ::syscall(SYS_getdents64, fd, bytes.data(), bytes.size());
        if (count < 0)
            return refuse_errno();
        if (count == 0)
            break;
        std::span<const std::byte> block(bytes.data(), static_cast<std::size_t>(count));
        while (!block.empty() && !filler.is_full())
            // A name that is not UTF-8 cannot be said in preview 1.
            if (const auto entry = take_entry(block); is_utf8(entry.name))
                add_entry(filler, entry, own.st_ino);
    }
    used.set(filler.used());
    return {};
}

} // namespace host_runner::wasm::wasi::calls

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The guest's descriptors.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <variant>
#include <vector>

#include "answer.hpp"
#include "host_runner/wasm/wasi/files.hpp"
#include "layout.hpp"

namespace host_runner::wasm::wasi {

struct InputBytes {
    std::string bytes;
    std::size_t offset = 0;
};

/// The offset is ours, not the kernel's: pwrite with APPEND must honour the offset it is given,
/// which Linux does not do for O_APPEND.
struct RegularFile {
    UniqueFd fd;
    std::uint64_t offset = 0; ///< At most INT64_MAX.
    bool can_read = false;
    bool can_write = false;
    Access access = Access::read_only; ///< Of the directory it was opened in.
};

struct Folder {
    UniqueFd fd;
    std::optional<std::string> preopen_name;
    Access access = Access::read_only;
};

using Object = std::variant<NullFile, InputBytes, CaptureOut, HostStream, Folder, RegularFile,
                            Listener, Stream>;

struct Entry {
    Object object;
    std::uint16_t flags = 0; ///< fd_flags

    template <class T>
    [[nodiscard]] T* as() noexcept {
        return std::get_if<T>(&object);
    }
    [[nodiscard]] bool is_nonblocking() const noexcept {
        return (flags & layout::fd_flags::nonblock) != 0;
    }
};

class FdTable {
public:
    explicit FdTable(std::size_t max_entries) : max_entries_(max_entries) {}

    /// BADF when not open. Valid until the next insert, move or close.
    [[nodiscard]] Answer<Entry*> get(std::uint32_t fd);
    /// MFILE when the table is full.
    [[nodiscard]] Answer<void> check_room() const;
    /// Gives the lowest free number; MFILE when there is none.
    [[nodiscard]] Answer<std::uint32_t> insert(Entry entry);
    /// Frees the number; the caller closes the entry. The descriptor must be open.
    [[nodiscard]] std::unique_ptr<Entry> take(std::uint32_t fd);
    /// Moves `from`, which is open, to `to`, which is open too and not the same; gives what was
    /// there.
    [[nodiscard]] std::unique_ptr<Entry> replace(std::uint32_t from, std::uint32_t to);
    /// Everything that is open; the table is empty then.
    [[nodiscard]] std::vector<std::unique_ptr<Entry>> take_all() noexcept;

private:
    std::size_t max_entries_;
    std::vector<std::unique_ptr<Entry>> entries_; ///< By number; null when free.
};

} // namespace host_runner::wasm::wasi

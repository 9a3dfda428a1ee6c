// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The guest's memory, which only gives out places that were checked. Valid during one call.

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

#include "answer.hpp"

namespace host_runner::wasm::wasi {

static_assert(std::endian::native == std::endian::little, "WebAssembly's memory is little-endian");

/// A number at `offset` of bytes that are known to hold it.
template <class T>
[[nodiscard]] T load(std::span<const std::byte> bytes, std::size_t offset = 0) noexcept {
    T value{};
    std::memcpy(&value, bytes.subspan(offset, sizeof value).data(), sizeof value);
    return value;
}

template <class T>
void store(std::span<std::byte> bytes, std::size_t offset, T value) noexcept {
    std::memcpy(bytes.subspan(offset, sizeof value).data(), &value, sizeof value);
}

/// A checked place for one number of the answer. Checked before a call does anything, so that a
/// bad pointer leaves nothing behind that the guest cannot know of.
template <class T>
class Slot {
public:
    explicit Slot(std::span<std::byte> bytes) noexcept : bytes_(bytes) {}
    void set(T value) const noexcept {
        store(bytes_, 0, value);
    }

private:
    std::span<std::byte> bytes_;
};

class GuestMemory {
public:
    explicit GuestMemory(std::span<std::byte> memory) noexcept : memory_(memory) {}

    /// Traps with out_of_bounds when any byte is outside or `pointer` is not a multiple of `align`.
    [[nodiscard]] Answer<std::span<std::byte>> bytes(std::uint32_t pointer, std::uint64_t length,
                                                     std::uint32_t align = 1) const;

    template <class T>
    [[nodiscard]] Answer<Slot<T>> slot(std::uint32_t pointer) const {
        WASI_TRY(const auto place, bytes(pointer, sizeof(T), alignof(T)));
        return Slot<T>(place);
    }

    /// A path: out_of_bounds traps; ILSEQ: not UTF-8; NAMETOOLONG: 4096 bytes or more; INVAL: a NUL
    /// inside.
    [[nodiscard]] Answer<std::string> path(std::uint32_t pointer, std::uint32_t length) const;

private:
    std::span<std::byte> memory_;
};

/// True for well-formed UTF-8 (Unicode 15, table 3-7).
[[nodiscard]] bool is_utf8(std::string_view text) noexcept;

} // namespace host_runner::wasm::wasi

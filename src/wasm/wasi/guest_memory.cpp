// SPDX-License-Identifier: Apache-2.0
#include "guest_memory.hpp"

#include <climits>

namespace host_runner::wasm::wasi {

namespace {

/// How many bytes follow `first`, and what the first of them may be; 0 and an empty range: none.
struct Sequence {
    std::size_t following = 0;
    unsigned char low = 0x80;
    unsigned char high = 0xbf;
    bool valid = true;
};

Sequence sequence_of(unsigned char first) noexcept {
    if (first < 0x80)
        return {};
    if (first >= 0xc2 && first <= 0xdf)
        return {1};
    if (first >= 0xe0 && first <= 0xef) // no overlong forms, no surrogates
        return {2, static_cast<unsigned char>(first == 0xe0 ? 0xa0 : 0x80),
                static_cast<unsigned char>(first == 0xed ? 0x9f : 0xbf)};
    if (first >= 0xf0 && first <= 0xf4) // nothing above U+10FFFF
        return {3, static_cast<unsigned char>(first == 0xf0 ? 0x90 : 0x80),
                static_cast<unsigned char>(first == 0xf4 ? 0x8f : 0xbf)};
    return {0, 0, 0, false};
}

} // namespace

bool is_utf8(std::string_view text) noexcept {
    while (!text.empty()) {
        const auto sequence = sequence_of(static_cast<unsigned char>(text.front()));
        if (!sequence.valid || text.size() <= sequence.following)
            return false;
        for (std::size_t i = 1; i <= sequence.following; ++i) {
            const auto byte = static_cast<unsigned char>(text[i]);
            if (byte < (i == 1 ? sequence.low : 0x80) || byte > (i == 1 ? sequence.high : 0xbf))
                return false;
        }
        text.remove_prefix(1 + sequence.following);
    }
    return true;
}

Answer<std::span<std::byte>> GuestMemory::bytes(std::uint32_t pointer, std::uint64_t length,
                                                std::uint32_t align) const {
    if (pointer % align != 0)
        return end_guest(TrapReason::out_of_bounds, "A pointer to the host is misaligned");
    if (pointer > memory_.size() || length > memory_.size() - pointer)
        return end_guest(TrapReason::out_of_bounds, "A pointer to the host leaves the memory");
    return memory_.subspan(pointer, static_cast<std::size_t>(length));
}

Answer<std::string> GuestMemory::path(std::uint32_t pointer, std::uint32_t length) const {
    WASI_TRY(const auto place, bytes(pointer, length));
    if (place.size() >= PATH_MAX)
        return refuse(Errno::nametoolong);
    std::string text(reinterpret_cast<const char*>(place.data()), place.size());
    if (!is_utf8(text))
        return refuse(Errno::ilseq);
    if (text.find('\0') != std::string::npos)
        return refuse(Errno::inval);
    return text;
}

} // namespace host_runner::wasm::wasi

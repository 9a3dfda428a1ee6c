// SPDX-License-Identifier: Apache-2.0
#include "buffers.hpp"

#include <algorithm>

namespace host_runner::wasm::wasi {

Answer<std::span<iovec>> guest_buffers(Call& call, std::size_t pointer, std::size_t count) {
    constexpr std::uint32_t max_elements = 1024;
    constexpr std::uint32_t align = 4;
    const std::uint64_t elements = call.u32(count);
    WASI_TRY(auto list,
             call.memory.bytes(call.u32(pointer), elements * layout::iovec_bytes, align));
    if (elements > max_elements)
        return refuse(Errno::inval);
    auto& buffers = call.state.buffers;
    buffers.clear();
    auto room = max_transfer_bytes;
    for (; !list.empty(); list = list.subspan(layout::iovec_bytes)) {
        WASI_TRY(const auto place,
                 call.memory.bytes(load<std::uint32_t>(list, 0), load<std::uint32_t>(list, 4)));
        const auto taken = std::min(place.size(), room);
        if (taken > 0)
            buffers.push_back({place.data(), taken});
        room -= taken;
    }
    return std::span<iovec>(buffers);
}

} // namespace host_runner::wasm::wasi

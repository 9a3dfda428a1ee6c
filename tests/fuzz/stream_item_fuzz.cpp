// SPDX-License-Identifier: Apache-2.0
// Lines of a streamed answer (Logs, Exec): what decodes must survive a round trip.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "host_runner/protocol/guest_api.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace host_runner::protocol;
    const auto item = decode_stream_item({reinterpret_cast<const char*>(data), size});
    if (!item)
        return 0;
    const auto again = decode_stream_item(encode_stream_item(*item));
    if (!again || again->kind != item->kind || again->service != item->service)
        std::abort();
    return 0;
}

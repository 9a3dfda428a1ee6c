// SPDX-License-Identifier: Apache-2.0
// Frames are the same however the bytes are cut, and what is read is written the same way again.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "host_runner/protocol/invocation.hpp"

namespace {

using namespace host_runner::protocol;

void look_into(const Frame& frame) {
    if (const auto request = decode_invoke_request(frame.payload)) {
        // Ours may be longer than JSON of another form, and then too long.
        if (const auto bytes = encode_invoke_request(*request)) {
            const auto again = decode_invoke_request(*bytes);
            if (!again || encode_invoke_request(*again).value_or("") != *bytes)
                std::abort();
        }
    }
    if (const auto result = decode_invoke_result(frame.payload))
        if (!decode_invoke_result(encode_invoke_result(*result)))
            std::abort();
    static_cast<void>(decode_session_ready(frame.payload));
    static_cast<void>(decode_room(frame.payload));
}

/// All frames up to the first error, encoded again.
std::string read_in_pieces(std::string_view bytes, std::size_t piece) {
    FrameReader reader;
    std::string read;
    while (!bytes.empty()) {
        const auto size = std::min(piece, bytes.size());
        reader.push(bytes.substr(0, size));
        bytes.remove_prefix(size);
        for (;;) {
            const auto frame = reader.next();
            if (!frame)
                return read;
            if (!*frame)
                break;
            look_into(**frame);
            read += encode_frame(**frame);
        }
    }
    return read;
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string_view bytes(reinterpret_cast<const char*>(data), size);
    const auto whole = read_in_pieces(bytes, bytes.size());
    if (bytes.substr(0, whole.size()) != whole || read_in_pieces(bytes, 7) != whole)
        std::abort();
    if (const auto frame = decode_frame(bytes); frame && encode_frame(*frame) != bytes)
        std::abort();
    FrameReader reader;
    reader.push(bytes);
    const auto hello = bytes.substr(0, std::min(bytes.size(), hello_bytes));
    if (reader.skip_to_ready(hello))
        static_cast<void>(reader.next());
    return 0;
}

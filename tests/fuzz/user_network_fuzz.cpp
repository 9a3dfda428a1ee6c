// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "host_runner/usernet/program/destinations.hpp"
#include "host_runner/usernet/program/frame_stream.hpp"
#include "host_runner/usernet/settings.hpp"

namespace {

using namespace host_runner::usernet;

struct Frames {
    bool good = true;
    std::vector<std::string> frames;
    bool operator==(const Frames&) const = default;
};

Frames read(std::string_view bytes, std::size_t step) {
    program::FrameReader reader;
    Frames result;
    for (; result.good && !bytes.empty(); bytes.remove_prefix(std::min(step, bytes.size())))
        result.good = reader.feed(bytes.substr(0, step), [&](std::string_view frame) {
            result.frames.emplace_back(frame);
        });
    return result;
}

} // namespace

/// How the stream is cut must not matter; a status is one line; no text crashes the rest.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string_view bytes(reinterpret_cast<const char*>(data), size);
    if (!(read(bytes, 1) == read(bytes, std::max<std::size_t>(size, 1))))
        std::abort();
    if (program::nameservers_of(bytes).size() > 16)
        std::abort();
    const auto line = format_status(parse_status(bytes));
    if (std::count(line.begin(), line.end(), '\n') != 1)
        std::abort();
    return 0;
}

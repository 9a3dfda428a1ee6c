// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "host_runner/image/tdvf.hpp"

/// A firmware file: an accepted descriptor lies in the file.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const auto descriptor =
        host_runner::image::parse_tdvf({reinterpret_cast<const char*>(data), size});
    if (descriptor && descriptor->offset + 16 + std::uint64_t{32} * descriptor->sections > size)
        std::abort();
    return 0;
}

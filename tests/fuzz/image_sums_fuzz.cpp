// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "host_runner/image/metadata.hpp"

/// sha256sum.txt and digest.txt: accepted names are plain and unique, accepted digests are hex.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace host_runner::image;
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    if (const auto digest = parse_digest(text); digest && !is_sha256_hex(*digest))
        std::abort();
    const auto sums = parse_sha256sums(text);
    if (!sums)
        return 0;
    for (std::size_t i = 0; i < sums->size(); ++i) {
        if (!is_safe_file_name((*sums)[i].name) || !is_sha256_hex((*sums)[i].sha256))
            std::abort();
        for (std::size_t k = 0; k < i; ++k)
            if ((*sums)[k].name == (*sums)[i].name)
                std::abort();
    }
    return 0;
}

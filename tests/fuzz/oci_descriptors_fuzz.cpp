// SPDX-License-Identifier: Apache-2.0
// What is taken for a digest can be part of a path.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "host_runner/spec/oci_layout.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const auto descriptors =
        host_runner::spec::parse_oci_descriptors({reinterpret_cast<const char*>(data), size});
    if (!descriptors)
        return 0;
    for (const auto& descriptor : *descriptors)
        if (descriptor.sha256.size() != 64 ||
            descriptor.sha256.find_first_not_of("0123456789abcdef") != std::string::npos)
            std::abort();
    return 0;
}

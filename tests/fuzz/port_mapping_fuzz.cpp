// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "host_runner/spec/port_mapping.hpp"

using namespace host_runner::spec;

/// What is taken must come back the same from its own text.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const auto mappings = parse_port_mappings({reinterpret_cast<const char*>(data), size});
    if (!mappings)
        return 0;
    for (const auto& mapping : *mappings)
        HR_ASSERT(parse_port_mappings(format_port_mapping(mapping)).value().at(0) == mapping);
    return 0;
}

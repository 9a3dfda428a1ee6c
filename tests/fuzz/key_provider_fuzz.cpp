// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "host_runner/spec/vm_spec.hpp"

using namespace host_runner::spec;

/// What is taken must come back the same from its own text.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const auto provider = parse_key_provider({reinterpret_cast<const char*>(data), size});
    if (provider)
        HR_ASSERT(parse_key_provider(format_key_provider(*provider)).value() == *provider);
    return 0;
}

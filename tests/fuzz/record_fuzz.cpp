// SPDX-License-Identifier: Apache-2.0
// A record that can be read is written the same way again.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "host_runner/instance/record.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace host_runner::instance;
    const auto record = decode_record({reinterpret_cast<const char*>(data), size});
    if (!record)
        return 0;
    const auto bytes = encode_record(*record);
    const auto again = decode_record(bytes);
    if (again && encode_record(*again) != bytes)
        std::abort();
    return 0;
}

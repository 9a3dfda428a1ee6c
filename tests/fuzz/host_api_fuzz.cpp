// SPDX-License-Identifier: Apache-2.0
// Bodies of the host API, as a guest sends them.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "host_runner/protocol/host_api.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace host_runner::protocol;
    const std::string_view json(reinterpret_cast<const char*>(data), size);
    static_cast<void>(decode_event(json));
    static_cast<void>(decode_host_info(json));
    static_cast<void>(decode_sealing_key_request(json));
    return 0;
}

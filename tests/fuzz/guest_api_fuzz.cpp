// SPDX-License-Identifier: Apache-2.0
// Bodies of the guest API: answers as a guest gives them, requests as its host sends them.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "host_runner/protocol/guest_api.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace host_runner::protocol;
    const std::string_view json(reinterpret_cast<const char*>(data), size);
    static_cast<void>(decode_guest_info(json));
    static_cast<void>(decode_system_info(json));
    static_cast<void>(decode_services(json));
    static_cast<void>(decode_logs_request(json));
    static_cast<void>(decode_exec_request(json));
    return 0;
}

// SPDX-License-Identifier: Apache-2.0
// Lines on the control socket, in both directions.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "../../src/instance/control_wire.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace host_runner::instance;
    const std::string_view line(reinterpret_cast<const char*>(data), size);
    static_cast<void>(decode_control_request(line));
    static_cast<void>(decode_live_status(line));
    static_cast<void>(decode_stop_step(line));
    return 0;
}

// SPDX-License-Identifier: Apache-2.0
// What the guest takes for an app is written the same way again.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "host_runner/protocol/app_compose.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace host_runner::protocol;
    const auto app = decode_app_compose({reinterpret_cast<const char*>(data), size});
    if (!app)
        return 0;
    const auto bytes = encode_app_compose(*app);
    const auto again = decode_app_compose(bytes);
    if (!again || encode_app_compose(*again) != bytes)
        std::abort();
    return 0;
}

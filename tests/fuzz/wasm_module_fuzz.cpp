// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "host_runner/spec/wasm_module.hpp"

using namespace host_runner::spec;

/// What suits a world says what it exports.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const auto module = describe_wasm({reinterpret_cast<const char*>(data), size});
    if (!module)
        return 0;
    if (guess_world(*module))
        HR_ASSERT(!module->exports.empty());
    return 0;
}

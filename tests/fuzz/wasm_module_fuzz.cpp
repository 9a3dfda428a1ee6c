// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "host_runner/spec/wasm_module.hpp"

using namespace host_runner::spec;

/// A component has nothing else to say, and a module that suits a world says what it exports.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const auto module = describe_wasm({reinterpret_cast<const char*>(data), size});
    if (!module)
        return 0;
    HR_ASSERT(!module->is_component || (module->imports.empty() && module->functions.empty()));
    if (guess_world(*module))
        HR_ASSERT(!module->functions.empty());
    return 0;
}

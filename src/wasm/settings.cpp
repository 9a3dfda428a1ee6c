// SPDX-License-Identifier: Apache-2.0
#include "settings.hpp"

#include <array>

#include <fmt/format.h>

namespace host_runner::wasm {

namespace {

struct Switch {
    std::string_view name;
    void (*set)(wasm_config_t*, bool);
    bool value;
};

// docs/wasm.md has the reason of each.
constexpr std::array<Switch, 7> switches{{
    {"epoch_interruption", wasmtime_config_epoch_interruption_set, true},
    {"memory_init_cow", wasmtime_config_memory_init_cow_set, true},
    {"wasm_memory64", wasmtime_config_wasm_memory64_set, false},
    {"wasm_multi_memory", wasmtime_config_wasm_multi_memory_set, false},
    {"wasm_stack_switching", wasmtime_config_wasm_stack_switching_set, false},
    {"shared_memory", wasmtime_config_shared_memory_set, false},
    // The engine walks guest frames by frame pointers; the tables would only serve debuggers.
    {"native_unwind_info", wasmtime_config_native_unwind_info_set, false},
}};

} // namespace

ConfigHandle make_config() {
    ConfigHandle config(wasm_config_new());
    for (const auto& [name, set, value] : switches)
        set(config.get(), value);
    return config;
}

std::string settings_text() {
    std::string text;
    for (const auto& [name, set, value] : switches)
        text += fmt::format("{}={} ", name, value ? 1 : 0);
    return text;
}

std::string_view engine_version() noexcept {
    return WASMTIME_VERSION;
}

} // namespace host_runner::wasm

// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "host_runner/wasm/engine.hpp"
#include "settings.hpp"

namespace host_runner::wasm {

namespace {

Result<std::string> taken(wasm_byte_vec_t bytes) {
    std::string artifact(bytes.data, bytes.size);
    wasm_byte_vec_delete(&bytes);
    return artifact;
}

Result<std::string> compile_component(std::string_view component) {
    wasm_byte_vec_t bytes;
    const ErrorHandle error(hr_component_compile(
        make_config().release(),
        reinterpret_cast<const std::uint8_t*>(component.data()), // NOLINT: bytes
        component.size(), &bytes));
    if (error)
        return fail(ErrorCode::corrupt_data,
                    fmt::format("Not a component that can be compiled: {}", message_of(*error)));
    return taken(bytes);
}

} // namespace

bool is_component(std::string_view bytes) noexcept {
    // The version and layer fields of the preamble, after the magic number that both share.
    constexpr std::string_view preamble("\0asm\x0d\0\x01\0", 8);
    return bytes.substr(0, preamble.size()) == preamble;
}

Result<std::string> compile(std::string_view module) {
    if (is_component(module))
        return compile_component(module);
    // Without a pool: nothing is instantiated here, so no address space has to be reserved.
    wasmtime_error_t* problem = nullptr;
    const EngineHandle engine(hr_engine_new(make_config().release(), &problem));
    if (const ErrorHandle error(problem); !engine)
        return fail(ErrorCode::internal,
                    fmt::format("Cannot start the compiler: {}", message_of(*error)));
    wasmtime_module_t* made = nullptr;
    const ErrorHandle error(
        wasmtime_module_new(engine.get(), reinterpret_cast<const std::uint8_t*>(module.data()),
                            module.size(), &made)); // NOLINT: bytes
    if (error)
        return fail(ErrorCode::corrupt_data,
                    fmt::format("Not a module that can be compiled: {}", message_of(*error)),
                    "core modules are compiled here, with the proposals that docs/wasm.md names");
    const ModuleHandle compiled(made);
    wasm_byte_vec_t bytes;
    const ErrorHandle unserialized(wasmtime_module_serialize(compiled.get(), &bytes));
    if (unserialized)
        return fail(ErrorCode::internal,
                    fmt::format("Cannot write out compiled code: {}", message_of(*unserialized)));
    return taken(bytes);
}

} // namespace host_runner::wasm

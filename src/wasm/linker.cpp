// SPDX-License-Identifier: Apache-2.0

#include <algorithm>

#include <fmt/format.h>

#include "impl.hpp"

namespace host_runner::wasm {

namespace {

/// The guest's exported memory. Looked up by name only while its `start` function runs, before the
/// instance is known.
std::span<std::byte> memory_of(const CallState& state, wasmtime_caller_t* caller,
                               wasmtime_context_t* context) noexcept {
    wasmtime_memory_t memory{};
    if (state.memory) {
        memory = *state.memory;
    } else {
        constexpr std::string_view name = "memory";
        wasmtime_extern_t found;
        if (!wasmtime_caller_export_get(caller, name.data(), name.size(), &found))
            return {};
        if (found.kind != WASMTIME_EXTERN_MEMORY) {
            wasmtime_extern_delete(&found);
            return {};
        }
        memory = found.of.memory;
    }
    return {reinterpret_cast<std::byte*>(wasmtime_memory_data(context, &memory)), // NOLINT: bytes
            wasmtime_memory_data_size(context, &memory)};
}

/// Every call from a guest to the host comes in here. Rust and guest frames are above: nothing may
/// be thrown.
wasm_trap_t* call_host(void* env, wasmtime_caller_t* caller, wasmtime_val_raw_t* values,
                       std::size_t /*count*/) noexcept {
    const auto& binding = *static_cast<const HostBinding*>(env);
    wasmtime_context_t* context = wasmtime_caller_context(caller);
    auto& state = *static_cast<CallState*>(wasmtime_context_get_data(context));
    std::array<std::uint64_t, max_host_parameters>
        arguments; // NOLINT: only what is filled is passed on
    for (std::size_t i = 0; i < binding.parameters.size(); ++i)
        // NOLINTNEXTLINE: the C API's array and union; an i32 leaves the rest of its cell undefined
        arguments[i] = binding.parameters[i] == ValueType::i32
                           ? static_cast<std::uint32_t>(values[i].i32)
                           : static_cast<std::uint64_t>(values[i].i64);
    HostCall call;
    call.state = state.host_state;
    call.memory = memory_of(state, caller, context);
    call.arguments = std::span(arguments).first(binding.parameters.size());
    auto result = binding.call(call);
    if (!result) {
        state.host_trap = std::move(result).error();
        // Ends the guest; the outcome is made of what the state says.
        constexpr std::string_view text = "ended by the host";
        return wasmtime_trap_new(text.data(), text.size());
    }
    if (binding.returns_i32)
        values[0].i32 = static_cast<std::int32_t>(*result); // NOLINT: the C API's array and union
    return nullptr;
}

FunctionTypeHandle type_of(const HostBinding& binding) {
    std::vector<wasm_valtype_t*> types;
    types.reserve(binding.parameters.size());
    for (const auto parameter : binding.parameters)
        types.push_back(wasm_valtype_new(parameter == ValueType::i32 ? WASM_I32 : WASM_I64));
    wasm_valtype_vec_t parameters;
    wasm_valtype_vec_new(&parameters, types.size(), types.data()); // takes what the array points to
    wasm_valtype_vec_t results;
    wasm_valtype_t* const i32 = binding.returns_i32 ? wasm_valtype_new(WASM_I32) : nullptr;
    wasm_valtype_vec_new(&results, binding.returns_i32 ? 1 : 0, &i32);
    return FunctionTypeHandle(wasm_functype_new(&parameters, &results));
}

} // namespace

Result<Linker> Engine::make_linker(std::span<const HostFunction> functions) const {
    auto bindings = std::make_shared<std::vector<HostBinding>>();
    auto impl = std::make_shared<Linker::Impl>();
    for (const auto& function : functions) {
        if (function.call == nullptr || function.parameters.size() > max_host_parameters)
            return fail(ErrorCode::invalid_argument,
                        fmt::format("Host function {}.{} cannot be called", function.module,
                                    function.name));
        const auto [at, added] = impl->names.emplace(
            std::pair(std::string(function.module), std::string(function.name)), bindings->size());
        if (!added)
            return fail(
                ErrorCode::invalid_argument,
                fmt::format("Host function {}.{} is there twice", function.module, function.name));
        bindings->push_back({function.call,
                             {function.parameters.begin(), function.parameters.end()},
                             function.returns_i32});
    }
    impl->bindings = bindings;
    impl->linker.reset(wasmtime_linker_new(impl_->engine.get()));
    for (const auto& [name, index] : impl->names) {
        auto& binding = bindings->at(index);
        const auto type = type_of(binding);
        const ErrorHandle error(wasmtime_linker_define_func_unchecked(
            impl->linker.get(), name.first.data(), name.first.size(), name.second.data(),
            name.second.size(), type.get(), call_host, &binding, nullptr));
        if (error)
            return fail(ErrorCode::internal, fmt::format("Cannot define {}.{}: {}", name.first,
                                                         name.second, message_of(*error)));
    }
    return Linker(std::move(impl));
}

Result<Program> Linker::bind(const Module& module) const {
    std::string missing;
    std::size_t count = 0;
    for (const auto& import : module.impl_->imports) {
        const auto found = impl_->names.find(std::pair(import.module, import.name));
        if (import.kind == ExternKind::function && found != impl_->names.end())
            continue;
        constexpr std::size_t shown = 5;
        if (++count <= shown)
            missing += fmt::format("{}{}.{}", missing.empty() ? "" : ", ",
                                   plain_text(import.module, 60), plain_text(import.name, 60));
    }
    if (count > 0)
        return fail(
            ErrorCode::unsupported,
            fmt::format("The module imports what the host does not have ({}): {}", count, missing),
            "build the module for an interface that this host offers (WASI preview 1 for "
            "commands)");
    auto impl = std::make_shared<Program::Impl>();
    HR_TRY(impl->entry, find_entry(module.impl_->exports));
    impl->bindings = impl_->bindings;
    impl->module = module.impl_;
    wasmtime_instance_pre_t* program = nullptr;
    const ErrorHandle error(
        wasmtime_linker_instantiate_pre(impl_->linker.get(), module.impl_->module.get(), &program));
    if (error)
        return fail(ErrorCode::invalid_argument,
                    fmt::format("The module cannot be linked: {}", message_of(*error)));
    impl->program.reset(program);
    return Program(std::move(impl));
}

} // namespace host_runner::wasm

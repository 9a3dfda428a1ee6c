// SPDX-License-Identifier: Apache-2.0
#include "host_runner/wasm/module.hpp"

#include <algorithm>

#include "impl.hpp"

namespace host_runner::wasm {

namespace {

ExternKind kind_of(const wasm_externtype_t* type) noexcept {
    switch (wasm_externtype_kind(type)) {
    case WASM_EXTERN_FUNC:
        return ExternKind::function;
    case WASM_EXTERN_GLOBAL:
        return ExternKind::global;
    case WASM_EXTERN_TABLE:
        return ExternKind::table;
    case WASM_EXTERN_MEMORY:
        return ExternKind::memory;
    default:
        return ExternKind::other;
    }
}

std::string text_of(const wasm_name_t& name) {
    return {name.data, name.size};
}

/// Asks by comparison: wasm_valtype_kind() aborts the process on a vector or a typed reference,
/// which any module may export.
std::optional<NumberType> number_type_of(const wasm_valtype_t* type) {
    struct Known {
        ValueTypeHandle type;
        NumberType number;
    };
    static const std::array<Known, 4> known{
        {{ValueTypeHandle(wasm_valtype_new(WASM_I32)), NumberType::i32},
         {ValueTypeHandle(wasm_valtype_new(WASM_I64)), NumberType::i64},
         {ValueTypeHandle(wasm_valtype_new(WASM_F32)), NumberType::f32},
         {ValueTypeHandle(wasm_valtype_new(WASM_F64)), NumberType::f64}}};
    for (const auto& [candidate, number] : known)
        if (wasmtime_wasm_valtype_equal(candidate.get(), type))
            return number;
    return std::nullopt;
}

bool read_types(const wasm_valtype_vec_t& types, std::vector<NumberType>& into) {
    for (std::size_t i = 0; i < types.size; ++i) {
        const auto number = number_type_of(types.data[i]); // NOLINT: the C API's array
        if (!number)
            return false;
        into.push_back(*number);
    }
    return true;
}

FunctionShape shape_of(const wasm_externtype_t* type) {
    const wasm_functype_t* function = wasm_externtype_as_functype_const(type);
    FunctionShape shape;
    shape.only_numbers = read_types(*wasm_functype_params(function), shape.parameters) &&
                         read_types(*wasm_functype_results(function), shape.results);
    return shape;
}

} // namespace

std::shared_ptr<const Module::Impl> describe_module(ModuleHandle module) {
    auto impl = std::make_shared<Module::Impl>();
    wasm_importtype_vec_t imports;
    wasmtime_module_imports(module.get(), &imports);
    for (std::size_t i = 0; i < imports.size; ++i) {
        const wasm_importtype_t* import = imports.data[i]; // NOLINT: the C API's array
        impl->imports.push_back({text_of(*wasm_importtype_module(import)),
                                 text_of(*wasm_importtype_name(import)),
                                 kind_of(wasm_importtype_type(import))});
    }
    wasm_importtype_vec_delete(&imports);

    wasm_exporttype_vec_t exports;
    wasmtime_module_exports(module.get(), &exports);
    for (std::size_t i = 0; i < exports.size; ++i) {
        const wasm_exporttype_t* thing = exports.data[i]; // NOLINT: the C API's array
        const wasm_externtype_t* type = wasm_exporttype_type(thing);
        impl->exports.push_back({text_of(*wasm_exporttype_name(thing)), kind_of(type)});
        if (impl->exports.back().kind == ExternKind::function)
            impl->functions.emplace(impl->exports.back().name, shape_of(type));
    }
    wasm_exporttype_vec_delete(&exports);
    impl->module = std::move(module);
    return impl;
}

Result<Entry> find_entry(const std::vector<ExportedThing>& exports) {
    const auto has = [&](std::string_view name) {
        return std::any_of(exports.begin(), exports.end(), [&](const ExportedThing& thing) {
            return thing.kind == ExternKind::function && thing.name == name;
        });
    };
    Entry entry;
    entry.is_reactor = has("_initialize");
    if (entry.is_reactor && has("_start"))
        return fail(ErrorCode::invalid_argument, "The module exports both _start and _initialize",
                    "a module is either a command or a reactor: build it as one of them");
    entry.has_function = has("") || has("_start");
    if (!has(""))
        entry.function = "_start";
    return entry;
}

const std::vector<ImportedThing>& Module::imports() const noexcept {
    return impl_->imports;
}

const std::vector<ExportedThing>& Module::exports() const noexcept {
    return impl_->exports;
}

const Entry& Program::entry() const noexcept {
    return impl_->entry;
}

} // namespace host_runner::wasm

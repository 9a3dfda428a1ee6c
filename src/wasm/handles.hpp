// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Owners of the engine's handles, and its messages as text of ours. The only headers of wasmtime's
/// in this project come in here.

#include <memory>
#include <string>
#include <string_view>

#include <engine_ffi.h>

#include "host_runner/base/delete_by.hpp"

namespace host_runner::wasm {

using ConfigHandle = std::unique_ptr<wasm_config_t, DeleteBy<wasm_config_delete>>;
using PoolConfigHandle = std::unique_ptr<wasmtime_pooling_allocation_config_t,
                                         DeleteBy<wasmtime_pooling_allocation_config_delete>>;
using EngineHandle = std::unique_ptr<wasm_engine_t, DeleteBy<wasm_engine_delete>>;
using ErrorHandle = std::unique_ptr<wasmtime_error_t, DeleteBy<wasmtime_error_delete>>;
using TrapHandle = std::unique_ptr<wasm_trap_t, DeleteBy<wasm_trap_delete>>;
using ModuleHandle = std::unique_ptr<wasmtime_module_t, DeleteBy<wasmtime_module_delete>>;
using LinkerHandle = std::unique_ptr<wasmtime_linker_t, DeleteBy<wasmtime_linker_delete>>;
using ProgramHandle =
    std::unique_ptr<wasmtime_instance_pre_t, DeleteBy<wasmtime_instance_pre_delete>>;
using StoreHandle = std::unique_ptr<wasmtime_store_t, DeleteBy<wasmtime_store_delete>>;
using ValueTypeHandle = std::unique_ptr<wasm_valtype_t, DeleteBy<wasm_valtype_delete>>;
using FunctionTypeHandle = std::unique_ptr<wasm_functype_t, DeleteBy<wasm_functype_delete>>;

/// One line of printable ASCII, at most `max_bytes`: names in a module are its author's, and go
/// into logs.
[[nodiscard]] std::string plain_text(std::string_view text, std::size_t max_bytes = 400);

/// The error's chain of causes on one line.
[[nodiscard]] std::string message_of(const wasmtime_error_t& error);

} // namespace host_runner::wasm

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// What a WebAssembly file wants from its host and what it offers, read from its first sections.
/// Nothing is validated or compiled: that is the guest's work, in a process of its own.
///
///     HR_TRY(const auto module, describe_wasm(bytes));
///     HR_TRY(const auto world, guess_world(module));

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "host_runner/base/error.hpp"
#include "host_runner/protocol/app_compose.hpp"

namespace host_runner::spec {

struct WasmImport {
    std::string module; ///< Of a component: an interface, e.g. "wasi:http/types@0.2.3".
    std::string name;   ///< Of a component: empty.
};

struct WasmModule {
    bool is_component = false;
    std::vector<WasmImport> imports;
    std::vector<std::string> exports; ///< Functions; of a component interfaces and functions.
};

/// Reads the import and export sections of a binary module or component of any size.
/// @errors corrupt_data: no WebAssembly (the text format too), or sections that end too early or
///         hold what the specification does not know
/// Source: WebAssembly core specification 3.0, chapter 5.5; component-model Binary.md
[[nodiscard]] Result<WasmModule> describe_wasm(std::string_view bytes);

/// The world that fits the module's imports and exports.
/// @errors unsupported: no world of this version does; says which import or export is in the way
[[nodiscard]] Result<protocol::World> guess_world(const WasmModule& module);

} // namespace host_runner::spec

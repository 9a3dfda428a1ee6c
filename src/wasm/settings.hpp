// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The engine's settings that shape compiled code, the same for the child that compiles and the
/// worker that runs.

#include <string>
#include <string_view>

#include "handles.hpp"

namespace host_runner::wasm {

/// A fresh configuration with all of them, without a pool.
[[nodiscard]] ConfigHandle make_config();

/// "NAME=0|1 ..." of what make_config() sets, for the key of compiled modules. Starts no engine.
[[nodiscard]] std::string settings_text();

/// e.g. "48.0.8"
[[nodiscard]] std::string_view engine_version() noexcept;

} // namespace host_runner::wasm

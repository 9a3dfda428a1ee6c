// SPDX-License-Identifier: Apache-2.0
#pragma once

/// A guest module in its stages: loaded (Module), and tied to the host's functions (Program), ready
/// to be called.
///
///     HR_TRY(auto linker, engine.make_linker(functions));   // once
///     HR_TRY(auto module, engine.load(artifact));            // once per module
///     HR_TRY(auto program, linker.bind(module));             // once per module
///     HR_TRY(auto outcome, engine.call(program, request));   // a fresh instance each time
///
/// All of these are handles that share what is behind them: copying is cheap, and they may be used
/// from several threads.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "host_runner/base/error.hpp"

namespace host_runner::wasm {

enum class ExternKind : std::uint8_t { function, global, table, memory, other };

struct ImportedThing {
    std::string module;
    std::string name;
    ExternKind kind = ExternKind::other;
};

struct ExportedThing {
    std::string name;
    ExternKind kind = ExternKind::other;
};

/// Which function starts a module, and whether `_initialize` has to run before any function.
struct Entry {
    std::string function; ///< "" or "_start"; only meaningful when `has_function`.
    bool has_function = false;
    bool is_reactor = false; ///< It exports `_initialize`, which runs first in each fresh instance.
};

/// The entry rules: the function exported under the empty name, else `_start`; a module with
/// `_initialize` is a reactor, whose functions are called by name.
/// @errors invalid_argument: the module exports both `_start` and `_initialize`
/// Source: WASI application ABI, github.com/WebAssembly/WASI legacy/application-abi.md
[[nodiscard]] Result<Entry> find_entry(const std::vector<ExportedThing>& exports);

/// Compiled code in memory.
class Module {
public:
    struct Impl;
    explicit Module(std::shared_ptr<const Impl> impl) noexcept : impl_(std::move(impl)) {}

    [[nodiscard]] const std::vector<ImportedThing>& imports() const noexcept;
    [[nodiscard]] const std::vector<ExportedThing>& exports() const noexcept;

private:
    friend class Linker;
    std::shared_ptr<const Impl> impl_;
};

/// A module whose imports are all resolved: what is left to do per call is the instance.
class Program {
public:
    struct Impl;
    explicit Program(std::shared_ptr<const Impl> impl) noexcept : impl_(std::move(impl)) {}

    [[nodiscard]] const Entry& entry() const noexcept;

private:
    friend class Engine;
    std::shared_ptr<const Impl> impl_;
};

/// The host's functions, defined once for all modules that may import them.
class Linker {
public:
    struct Impl;
    explicit Linker(std::shared_ptr<const Impl> impl) noexcept : impl_(std::move(impl)) {}

    /// Resolves the module's imports.
    /// @errors unsupported: an import that the host does not have, named; invalid_argument: an
    /// import of another type than the
    ///         host's function, or the entry rules are broken (find_entry)
    [[nodiscard]] Result<Program> bind(const Module& module) const;

private:
    std::shared_ptr<const Impl> impl_;
};

} // namespace host_runner::wasm

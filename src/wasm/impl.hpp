// SPDX-License-Identifier: Apache-2.0
#pragma once

/// What is behind the handles of module.hpp and engine.hpp.

#include <array>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "handles.hpp"
#include "host_runner/wasm/engine.hpp"
#include "places.hpp"
#include "ticker.hpp"

namespace host_runner::wasm {

enum class NumberType : std::uint8_t { i32, i64, f32, f64 };

/// An exported function, so far as it can be called.
struct FunctionShape {
    std::vector<NumberType> parameters;
    std::vector<NumberType> results;
    bool only_numbers = true; ///< No vectors or references.
};

/// One function of the host as the engine calls it.
struct HostBinding {
    HostResult (*call)(HostCall& call) noexcept = nullptr;
    std::vector<ValueType> parameters;
    bool returns_i32 = true;
};
/// So that a call needs no allocation for its arguments.
constexpr std::size_t max_host_parameters = 16;

/// What one call carries from its start to its outcome; the store's data.
struct CallState {
    void* host_state = nullptr;
    CallDeadline deadline;
    hr_store_limits limits{};
    std::optional<wasmtime_memory_t> memory; ///< The exported one, once the instance is there.
    std::optional<Trap> host_trap;           ///< What a host function returned.
    std::optional<CallEnd>
        overdue; ///< timed_out or cancelled, once the engine ended the guest for it.
};

/// timed_out or cancelled when the call has to end now.
[[nodiscard]] std::optional<CallEnd> overdue(const CallDeadline& deadline) noexcept;

struct Module::Impl {
    ModuleHandle module;
    std::vector<ImportedThing> imports;
    std::vector<ExportedThing> exports;
    std::map<std::string, FunctionShape, std::less<>> functions;
};

struct Linker::Impl {
    /// Referred to by the linker's functions, so it goes after it; shared with the programs, which
    /// outlive it.
    std::shared_ptr<const std::vector<HostBinding>> bindings;
    std::map<std::pair<std::string, std::string>, std::size_t> names;
    LinkerHandle linker;
};

struct Program::Impl {
    std::shared_ptr<const std::vector<HostBinding>> bindings;
    std::shared_ptr<const Module::Impl> module;
    Entry entry;
    ProgramHandle program;
};

struct Engine::Impl {
    EngineSettings settings;
    EngineHandle engine;
    mutable Places places;
    mutable Ticker ticker;

    Impl(const EngineSettings& with, EngineHandle made)
        : settings(with), engine(std::move(made)), places(with.places), ticker(*engine, with.tick) {
    }
};

/// A loaded module with everything that is read from it.
[[nodiscard]] std::shared_ptr<const Module::Impl> describe_module(ModuleHandle module);

} // namespace host_runner::wasm

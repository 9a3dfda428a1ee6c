// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Runs guest modules: fresh instance and limits for each call, compiled code shared between calls.
///
/// For worker processes only. A bug in the engine aborts the process it runs in, and the engine
/// takes the process's SIGSEGV, SIGILL and SIGFPE handlers: install others before make(), never
/// after. Never fork() without exec once it is made.

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "host_runner/base/error.hpp"
#include "host_runner/wasm/call.hpp"
#include "host_runner/wasm/host_function.hpp"
#include "host_runner/wasm/module.hpp"

namespace host_runner::wasm {

/// Sizes for a small VM. Only address space is reserved for what is not in use: about 4.3 GiB for
/// each place.
struct EngineSettings {
    std::uint32_t places = 64; ///< Instances that live at the same time.
    std::uint64_t max_memory_bytes = std::uint64_t{256} << 20; ///< Of one instance; at most 4 GiB.
    std::uint32_t table_elements = 20000;                      ///< Of one table.
    std::uint32_t tables_per_module = 4;
    /// Memory of a place that is cleared instead of given back when its instance ends: saves page
    /// faults, costs memory.
    std::size_t keep_resident_bytes = 0;
    /// How often running guests look at their deadline.
    std::chrono::milliseconds tick{5};
};

/// Its threads: one that ticks while guests run. All members may be called from several threads.
/// Whoever calls call() needs about 1 MiB of stack.
class Engine {
public:
    /// @errors invalid_argument: a setting out of its range; resource_exhausted: the address space
    /// cannot be reserved
    [[nodiscard]] static Result<Engine> make(const EngineSettings& settings = {});

    Engine(Engine&&) noexcept;
    Engine& operator=(Engine&&) noexcept;
    Engine(const Engine&) = delete;
    Engine& operator=(const Engine&) = delete;
    ~Engine(); ///< No call may be running.

    /// Loads what compile() made. It is native code: only ever give it bytes that this machine's
    /// own compiler made and that nobody else could change since (CompileCache checks that).
    /// @errors corrupt_data: not an artifact of this engine, its settings and this CPU;
    /// unsupported: larger than the pool's places
    [[nodiscard]] Result<Module> load(std::string_view artifact) const;

    /// The same from a file, which is mapped: it must never change while the module lives.
    [[nodiscard]] Result<Module> load_file(const std::string& path) const;

    /// Defines the host's functions once for all modules. What `functions` points to (names,
    /// parameters) is copied.
    /// @errors invalid_argument: two functions of one name, or one without `call`
    [[nodiscard]] Result<Linker> make_linker(std::span<const HostFunction> functions) const;

    /// Makes an instance and calls one of its functions. Blocks until the guest has ended; the
    /// deadline bounds that, as far as host functions keep it too.
    /// @errors invalid_argument: no such function, or other arguments than it takes; unsupported: a
    /// function with other than
    ///         number types; resource_exhausted: no place became free in time
    [[nodiscard]] Result<Outcome> call(const Program& program, const CallRequest& request) const;

    /// Implementation only.
    struct Impl;

private:
    explicit Engine(std::shared_ptr<const Impl> impl) noexcept;
    std::shared_ptr<const Impl> impl_;
};

/// Whether these are the bytes of a component rather than of a core module: by the preamble alone.
/// Source: WebAssembly/component-model design/mvp/Binary.md, "Component Definitions"
[[nodiscard]] bool is_component(std::string_view bytes) noexcept;

/// Translates a module or a component (for HttpServer) to native code for this CPU. Costs much time
/// and memory for hostile modules: use compile_in_child().
/// @errors corrupt_data: not a valid module; unsupported: it uses a proposal that is switched off
[[nodiscard]] Result<std::string> compile(std::string_view module);

} // namespace host_runner::wasm

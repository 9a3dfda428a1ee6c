// SPDX-License-Identifier: Apache-2.0
#include "host_runner/wasm/engine.hpp"

#include <algorithm>
#include <system_error>

#include <fmt/format.h>

#include "impl.hpp"
#include "settings.hpp"

namespace host_runner::wasm {

namespace {

PoolConfigHandle pool_of(const EngineSettings& settings) {
    PoolConfigHandle pool(wasmtime_pooling_allocation_config_new());
    auto* config = pool.get();
    wasmtime_pooling_allocation_config_total_core_instances_set(config, settings.places);
    // The heaps of garbage-collected guests come out of the same pool as linear memories.
    wasmtime_pooling_allocation_config_total_memories_set(config, settings.places * 2);
    wasmtime_pooling_allocation_config_total_gc_heaps_set(config, settings.places);
    wasmtime_pooling_allocation_config_total_tables_set(config, settings.places *
                                                                    settings.tables_per_module);
    wasmtime_pooling_allocation_config_max_memory_size_set(config, settings.max_memory_bytes);
    wasmtime_pooling_allocation_config_max_memories_per_module_set(config, 1);
    wasmtime_pooling_allocation_config_max_tables_per_module_set(config,
                                                                 settings.tables_per_module);
    wasmtime_pooling_allocation_config_table_elements_set(config, settings.table_elements);
    wasmtime_pooling_allocation_config_linear_memory_keep_resident_set(
        config, settings.keep_resident_bytes);
    return pool;
}

Result<void> check(const EngineSettings& settings) {
    const auto within = [](std::string_view name, std::uint64_t value, std::uint64_t least,
                           std::uint64_t most) -> Result<void> {
        if (value >= least && value <= most)
            return {};
        return fail(
            ErrorCode::invalid_argument,
            fmt::format("Engine setting {} is {}, not within {} and {}", name, value, least, most));
    };
    HR_CHECK(within("places", settings.places, 1, 10000));
    HR_CHECK(
        within("max_memory_bytes", settings.max_memory_bytes, 1 << 16, std::uint64_t{4} << 30));
    HR_CHECK(within("table_elements", settings.table_elements, 1, 10'000'000));
    HR_CHECK(within("tables_per_module", settings.tables_per_module, 1, 100));
    HR_CHECK(within("tick in ms", static_cast<std::uint64_t>(settings.tick.count()), 1, 1000));
    return {};
}

Result<Module> loaded(ErrorHandle error, wasmtime_module_t* module) {
    if (!error)
        return Module(describe_module(ModuleHandle(module)));
    auto message = message_of(*error);
    // The engine tells its reasons apart by text only. Of those that are no damage all speak of the
    // pool's limits.
    const bool too_large =
        message.find("exceeds") != std::string::npos || message.find("limit") != std::string::npos;
    return fail(too_large ? ErrorCode::unsupported : ErrorCode::corrupt_data,
                fmt::format("Cannot load the compiled module: {}", message),
                too_large ? "the module needs more than the engine's settings give one instance"
                          : "");
}

} // namespace

Engine::Engine(std::shared_ptr<const Impl> impl) noexcept : impl_(std::move(impl)) {}
Engine::Engine(Engine&&) noexcept = default;
Engine& Engine::operator=(Engine&&) noexcept = default;
Engine::~Engine() = default;

Result<Engine> Engine::make(const EngineSettings& settings) {
    HR_CHECK(check(settings));
    auto config = make_config();
    const auto pool = pool_of(settings);
    wasmtime_pooling_allocation_strategy_set(config.get(), pool.get());
    wasmtime_error_t* problem = nullptr;
    EngineHandle engine(hr_engine_new(config.release(), &problem));
    const ErrorHandle error(problem);
    if (!engine)
        return fail(
            ErrorCode::resource_exhausted,
            fmt::format("Cannot start the WebAssembly engine: {}", message_of(*error)),
            fmt::format(
                "it reserves about {} GiB of address space: raise ulimit -v, or use fewer places",
                std::uint64_t{settings.places} * 9));
    try {
        return Engine(std::make_shared<const Impl>(settings, std::move(engine)));
    } catch (const std::system_error& failure) {
        return fail(ErrorCode::resource_exhausted,
                    fmt::format("Cannot start the engine's thread: {}", failure.what()));
    }
}

Result<Module> Engine::load(std::string_view artifact) const {
    wasmtime_module_t* module = nullptr;
    ErrorHandle error(wasmtime_module_deserialize(
        impl_->engine.get(),
        reinterpret_cast<const std::uint8_t*>(artifact.data()), // NOLINT: bytes
        artifact.size(), &module));
    return loaded(std::move(error), module);
}

Result<Module> Engine::load_file(const std::string& path) const {
    wasmtime_module_t* module = nullptr;
    ErrorHandle error(wasmtime_module_deserialize_file(impl_->engine.get(), path.c_str(), &module));
    return loaded(std::move(error), module);
}

} // namespace host_runner::wasm

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Modules of tests/fixtures/wasm, compiled once a process, and an engine to run them.

#include <map>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "host_runner/base/files.hpp"
#include "host_runner/wasm/engine.hpp"

namespace host_runner::wasm::tests {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool sanitized = true;
#else
constexpr bool sanitized = false;
#endif

inline std::string fixture_module(const std::string& name) {
    auto bytes =
        read_file(HOST_RUNNER_SOURCE_DIR "/tests/fixtures/wasm/" + name + ".wasm", 1 << 20);
    EXPECT_TRUE(bytes) << bytes.error().describe();
    return bytes.value_or("");
}

inline const std::string& fixture_artifact(const std::string& name) {
    static std::map<std::string, std::string> made;
    auto& artifact = made[name];
    if (artifact.empty()) {
        auto compiled = compile(fixture_module(name));
        EXPECT_TRUE(compiled) << compiled.error().describe();
        artifact = std::move(compiled).value_or("");
    }
    return artifact;
}

inline Engine make_engine(const EngineSettings& settings = {}) {
    auto engine = Engine::make(settings);
    if (!engine)
        throw std::runtime_error(engine.error().describe());
    return std::move(*engine);
}

/// Of a fixture, with these functions of the host.
inline Result<Program> try_program(const Engine& engine, const std::string& name,
                                   std::span<const HostFunction> functions = {}) {
    HR_TRY(const auto linker, engine.make_linker(functions));
    HR_TRY(const auto module, engine.load(fixture_artifact(name)));
    return linker.bind(module);
}

inline Program make_program(const Engine& engine, const std::string& name,
                            std::span<const HostFunction> functions = {}) {
    auto program = try_program(engine, name, functions);
    if (!program)
        throw std::runtime_error(program.error().describe());
    return *program;
}

inline CallRequest request_of(std::string_view function,
                              std::span<const std::uint64_t> arguments = {}) {
    CallRequest request;
    request.function = function;
    request.arguments = arguments;
    return request;
}

inline CallRequest within(std::chrono::milliseconds time, CallRequest request) {
    request.deadline.at = std::chrono::steady_clock::now() + time;
    return request;
}

} // namespace host_runner::wasm::tests

// SPDX-License-Identifier: Apache-2.0
#include "host_runner/spec/wasm_module.hpp"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "host_runner/base/files.hpp"

namespace host_runner::spec {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

std::string fixture(const std::string& name) {
    return *read_file(HOST_RUNNER_SOURCE_DIR "/tests/fixtures/wasm/" + name, 1 << 20);
}

/// The preamble of a core module and then these bytes.
std::string module_with(std::string_view sections) {
    return std::string("\0asm\1\0\0\0", 8) + std::string(sections);
}

/// Of fewer than 128 bytes.
std::string section(char id, std::string_view content) {
    return std::string{id, static_cast<char>(content.size())} + std::string(content);
}

std::string problem_of(std::string_view sections) {
    const auto module = describe_wasm(module_with(sections));
    return module ? "none" : module.error().message;
}

TEST(WasmModule, of_a_compiler_tells_its_imports_and_exports) {
    const auto module = describe_wasm(fixture("site.wasm"));
    ASSERT_TRUE(module) << module.error().describe();
    EXPECT_FALSE(module->is_component);
    EXPECT_THAT(module->exports, Contains("_start"));
    for (const auto& import : module->imports)
        EXPECT_EQ(import.module, "wasi_snapshot_preview1");
    EXPECT_EQ(guess_world(*module), protocol::World::command);
}

TEST(WasmModule, without_sections_has_nothing) {
    const auto module = describe_wasm(module_with(""));
    ASSERT_TRUE(module);
    EXPECT_THAT(module->imports, IsEmpty());
    EXPECT_THAT(module->exports, IsEmpty());
}

TEST(WasmModule, may_import_things_of_every_kind) {
    using namespace std::literals;
    // (import "m" "f" (func (type 0))), a table of funcref 1..2, one of (ref null func), a 64-bit
    // memory, one with pages of one byte, a mutable global and a tag
    const auto module = describe_wasm(module_with(section(2, "\x07"
                                                             "\1m\1f\0\0"
                                                             "\1m\1t\x01\x70\1\1\2"
                                                             "\1m\1r\x01\x63\x70\0\0"
                                                             "\1m\1l\x02\x04\x80\1"
                                                             "\1m\1p\x02\x08\1\0"
                                                             "\1m\1g\x03\x7f\1"
                                                             "\1m\1x\x04\0\0"s)));
    ASSERT_TRUE(module) << module.error().describe();
    std::vector<std::string> names;
    for (const auto& import : module->imports)
        names.push_back(import.name);
    EXPECT_THAT(names, ElementsAre("f", "t", "r", "l", "p", "g", "x"));
    const auto world = guess_world(*module);
    ASSERT_FALSE(world);
    EXPECT_THAT(world.error().message, HasSubstr("m.f"));
}

TEST(WasmModule, that_is_damaged_is_refused) {
    using namespace std::literals;
    for (const auto& bytes : {""s, "\0as"s, "(module)"s, std::string(64, 'x')})
        EXPECT_EQ(describe_wasm(bytes).error().code, ErrorCode::corrupt_data);
    EXPECT_EQ(describe_wasm("\0asm\1"s).error().code, ErrorCode::corrupt_data);
    EXPECT_EQ(describe_wasm("\0asm\2\0\0\0"s).error().code, ErrorCode::unsupported);
    EXPECT_THAT(problem_of("\x02"sv), HasSubstr("ends too early"));
    EXPECT_THAT(problem_of("\x02\x05\x01"sv), HasSubstr("ends too early"));
    EXPECT_THAT(problem_of("\x02\x05\x01\1m\1f"sv), HasSubstr("ends too early"));
    EXPECT_THAT(problem_of("\x02\x06\x01\1m\1f\x09"sv), HasSubstr("unknown kind 9"));
    EXPECT_THAT(problem_of("\x02\xff\xff\xff\xff\xff\x01"sv), HasSubstr("too long"));
    // A count that promises more than there is costs nothing.
    EXPECT_THAT(problem_of("\x07\x05\xff\xff\xff\xff\x0f"sv), HasSubstr("ends too early"));
}

TEST(WasmModule, of_every_prefix_of_a_real_one_is_read_or_refused) {
    const auto whole = fixture("deeds.wasm");
    for (std::size_t size = 0; size < whole.size(); ++size)
        static_cast<void>(describe_wasm(whole.substr(0, size)));
}

TEST(WasmModule, that_is_a_component_tells_its_interfaces) {
    using namespace std::literals;
    const auto preamble = "\0asm\x0d\0\1\0"s;
    // Imports: an instance, a function with a version, a type equal to another and a resource, a
    // core module, a value of a type. Exports: an instance, a function with its type, a type.
    const auto module = describe_wasm(preamble +
                                      section(10, "\x06"
                                                  "\0\3a:b\5\0"
                                                  "\1\3c@0\2.2\1\0"
                                                  "\0\1t\3\0\7"
                                                  "\0\1r\3\1"
                                                  "\0\1m\0\x11\0"
                                                  "\0\1v\2\1\x73"s) +
                                      section(11, "\x03"
                                                  "\0\3x:y\5\0\0"
                                                  "\0\1f\1\0\1\1\4"
                                                  "\0\1t\3\0\0"s));
    ASSERT_TRUE(module) << module.error().describe();
    std::vector<std::string> names;
    for (const auto& import : module->imports)
        names.push_back(import.module);
    EXPECT_THAT(names, ElementsAre("a:b", "c@0.2", "t", "r", "m", "v"));
    EXPECT_THAT(module->exports, ElementsAre("x:y", "f"));
}

TEST(WasmModule, that_is_a_damaged_component_is_refused) {
    using namespace std::literals;
    const auto preamble = "\0asm\x0d\0\1\0"s;
    for (const auto& sections : {"\x0a\3\1\2\0"s, "\x0a\x05\1\0\1x\7"s, "\x0a\x06\1\0\1x\3\2"s,
                                 "\x0b\x04\1\0\1x"s, "\x0b\x07\1\0\1x\5\0\2"s})
        EXPECT_EQ(describe_wasm(preamble + sections).error().code, ErrorCode::corrupt_data);
    // The preamble of an earlier draft.
    EXPECT_EQ(describe_wasm("\0asm\x0a\0\1\0"s).error().code, ErrorCode::unsupported);
}

TEST(WasmModule, that_is_a_component_suits_the_world_of_its_export) {
    WasmModule component;
    component.is_component = true;
    component.imports = {{"wasi:http/types@0.2.3", ""}};
    component.exports = {"wasi:http/incoming-handler@0.2.3"};
    EXPECT_EQ(guess_world(component), protocol::World::wasi_http);
    component.imports = {{"own:types/shapes", ""}, {"wasi:io/poll@0.2.0", ""}};
    EXPECT_TRUE(guess_world(component)) << "what is not WASI's is the engine's to judge";
    for (const auto* name :
         {"wasi:http/types@0.3.0", "wasi:keyvalue/store@0.2.0", "wasi:io/poll", "wasi:"}) {
        component.imports = {{name, ""}};
        EXPECT_EQ(guess_world(component).error().message,
                  fmt::format("No world offers the import {}", name));
    }
    component.imports.clear();
    for (const auto* name : {"wasi:http/incoming-handler@0.3.0", "wasi:cli/run@0.2.3", "run"}) {
        component.exports = {name};
        EXPECT_THAT(guess_world(component).error().message,
                    HasSubstr("exports no wasi:http/incoming-handler@0.2"))
            << name;
    }
}

TEST(WasmModule, without_an_entry_suits_no_world) {
    const auto module = describe_wasm(fixture("reactor.wasm"));
    ASSERT_TRUE(module);
    EXPECT_THAT(guess_world(*module).error().message, HasSubstr("_start"));
}

} // namespace
} // namespace host_runner::spec

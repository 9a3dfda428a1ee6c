// SPDX-License-Identifier: Apache-2.0
#include "host_runner/spec/wasm_module.hpp"

#include <algorithm>
#include <cstddef>

#include <fmt/format.h>

namespace host_runner::spec {

namespace {

constexpr std::string_view magic{"\0asm", 4};
constexpr std::uint32_t core_version = 1;
/// The version word's upper half is the layer: 1 is the component model's.
constexpr std::uint32_t component_layer = 1;
constexpr std::string_view preview1 = "wasi_snapshot_preview1";

enum SectionId : std::uint8_t { import_section = 2, export_section = 7 };
enum ExternKind : std::uint8_t {
    extern_function,
    extern_table,
    extern_memory,
    extern_global,
    extern_tag
};

tl::unexpected<Error> malformed(std::string_view what) {
    return fail(ErrorCode::corrupt_data, fmt::format("The WebAssembly module is damaged: {}", what),
                "build it again; wasm-tools validate says more");
}

/// A cursor over the module's bytes that never passes their end.
class Reader {
public:
    explicit Reader(std::string_view bytes) : rest_(bytes) {}

    [[nodiscard]] bool is_at_end() const {
        return rest_.empty();
    }

    Result<std::uint8_t> byte() {
        if (rest_.empty())
            return malformed("it ends too early");
        const auto value = static_cast<std::uint8_t>(rest_.front());
        rest_.remove_prefix(1);
        return value;
    }

    /// LEB128, unsigned, of at most `bits`.
    Result<std::uint64_t> number(unsigned bits) {
        std::uint64_t value = 0;
        for (unsigned shift = 0; shift < bits; shift += 7) {
            HR_TRY(const auto next, byte());
            value |= static_cast<std::uint64_t>(next & 0x7FU) << shift;
            if ((next & 0x80U) == 0)
                return value;
        }
        return malformed("a number is too long");
    }

    Result<std::string_view> block(std::uint64_t size) {
        if (size > rest_.size())
            return malformed("it ends too early");
        const auto bytes = rest_.substr(0, static_cast<std::size_t>(size));
        rest_.remove_prefix(bytes.size());
        return bytes;
    }

    Result<std::string> name() {
        HR_TRY(const auto size, number(32));
        HR_TRY(const auto bytes, block(size));
        return std::string(bytes);
    }

private:
    std::string_view rest_;
};

Result<void> skip_value_type(Reader& reader) {
    HR_TRY(const auto type, reader.byte());
    // (ref ht) and (ref null ht) are followed by a heap type, a signed number of 33 bits.
    if (type == 0x63 || type == 0x64)
        HR_CHECK(reader.number(33));
    return {};
}

Result<void> skip_limits(Reader& reader) {
    HR_TRY(const auto flags, reader.number(8));
    const unsigned bits = (flags & 4U) != 0 ? 64 : 32;
    HR_CHECK(reader.number(bits));
    if ((flags & 1U) != 0)
        HR_CHECK(reader.number(bits));
    if ((flags & 8U) != 0) // custom page size
        HR_CHECK(reader.number(32));
    return {};
}

Result<void> skip_import_type(Reader& reader) {
    HR_TRY(const auto kind, reader.byte());
    switch (kind) {
    case extern_function:
        HR_CHECK(reader.number(32));
        return {};
    case extern_table:
        HR_CHECK(skip_value_type(reader));
        return skip_limits(reader);
    case extern_memory:
        return skip_limits(reader);
    case extern_global:
        HR_CHECK(skip_value_type(reader));
        HR_CHECK(reader.byte());
        return {};
    case extern_tag:
        HR_CHECK(reader.byte());
        HR_CHECK(reader.number(32));
        return {};
    default:
        return malformed(fmt::format("an import has the unknown kind {}", kind));
    }
}

Result<void> read_imports(Reader reader, WasmModule& module) {
    HR_TRY(const auto count, reader.number(32));
    for (std::uint64_t i = 0; i < count; ++i) {
        WasmImport import;
        HR_TRY(import.module, reader.name());
        HR_TRY(import.name, reader.name());
        HR_CHECK(skip_import_type(reader));
        module.imports.push_back(std::move(import));
    }
    return {};
}

Result<void> read_exports(Reader reader, WasmModule& module) {
    HR_TRY(const auto count, reader.number(32));
    for (std::uint64_t i = 0; i < count; ++i) {
        HR_TRY(auto name, reader.name());
        HR_TRY(const auto kind, reader.byte());
        HR_CHECK(reader.number(32));
        if (kind == extern_function)
            module.functions.push_back(std::move(name));
    }
    return {};
}

bool offers(const WasmModule& module, std::string_view name) {
    return std::find(module.functions.begin(), module.functions.end(), name) !=
           module.functions.end();
}

} // namespace

Result<WasmModule> describe_wasm(std::string_view bytes) {
    if (!bytes.starts_with(magic))
        return fail(ErrorCode::corrupt_data, "This is no WebAssembly module",
                    "name a binary .wasm file; wat2wasm makes one from the text format");
    Reader reader(bytes.substr(magic.size()));
    std::uint32_t version = 0;
    for (unsigned shift = 0; shift < 32; shift += 8) {
        HR_TRY(const auto byte, reader.byte());
        version |= static_cast<std::uint32_t>(byte) << shift;
    }
    WasmModule module;
    module.is_component = version >> 16U == component_layer;
    if (module.is_component)
        return module;
    if (version != core_version)
        return fail(ErrorCode::unsupported,
                    fmt::format("The WebAssembly module has the unknown version {}", version));
    while (!reader.is_at_end()) {
        HR_TRY(const auto id, reader.byte());
        HR_TRY(const auto size, reader.number(32));
        HR_TRY(const auto content, reader.block(size));
        if (id == import_section)
            HR_CHECK(read_imports(Reader(content), module));
        if (id == export_section)
            HR_CHECK(read_exports(Reader(content), module));
    }
    return module;
}

Result<protocol::World> guess_world(const WasmModule& module) {
    if (module.is_component)
        return fail(ErrorCode::unsupported,
                    "This is a component, and components are not in this version yet",
                    "build a module instead, for the target wasm32-wasip1");
    const auto foreign = std::find_if(module.imports.begin(), module.imports.end(),
                                      [](const auto& import) { return import.module != preview1; });
    if (foreign != module.imports.end())
        return fail(ErrorCode::unsupported,
                    fmt::format("No world offers the import {}.{}", foreign->module, foreign->name),
                    "build for WASI preview 1, the target wasm32-wasip1");
    if (!offers(module, "_start") && !offers(module, ""))
        return fail(ErrorCode::unsupported, "The module exports no _start function",
                    "build a program, not a library");
    return protocol::World::command;
}

} // namespace host_runner::spec

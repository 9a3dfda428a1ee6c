// SPDX-License-Identifier: Apache-2.0
#include "host_runner/spec/wasm_module.hpp"

#include <algorithm>
#include <array>
#include <cstddef>

#include <fmt/format.h>

namespace host_runner::spec {

namespace {

constexpr std::string_view magic{"\0asm", 4};
constexpr std::uint32_t core_version = 1;
/// The lower half is the version of the format, 13 as long as the component model is not finished;
/// the upper half is the layer, 1 for components.
constexpr std::uint32_t component_version = 0x1000D;
constexpr std::string_view preview1 = "wasi_snapshot_preview1";

enum SectionId : std::uint8_t { import_section = 2, export_section = 7 };
enum ComponentSectionId : std::uint8_t {
    component_import_section = 10,
    component_export_section = 11
};
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
            module.exports.push_back(std::move(name));
    }
    return {};
}

// ---- components --------------------------------------------------------------------------------

enum ComponentSort : std::uint8_t {
    sort_core,
    sort_function,
    sort_value,
    sort_type,
    sort_component,
    sort_instance
};

/// importname' and exportname': a name, and with newer tools what belongs to its version.
Result<std::string> read_component_name(Reader& reader) {
    HR_TRY(const auto form, reader.byte());
    if (form > 1)
        return malformed(fmt::format("a name has the unknown form {}", form));
    HR_TRY(auto name, reader.name());
    if (form == 1) {
        HR_TRY(const auto suffix, reader.name());
        name += suffix;
    }
    return name;
}

/// A bound is an index, or stands for itself.
Result<void> skip_bound(Reader& reader) {
    HR_TRY(const auto form, reader.byte());
    if (form == 0)
        HR_CHECK(reader.number(32));
    else if (form != 1)
        return malformed(fmt::format("a bound has the unknown form {}", form));
    return {};
}

Result<void> skip_extern_description(Reader& reader) {
    HR_TRY(const auto sort, reader.byte());
    switch (sort) {
    case sort_core:
        HR_CHECK(reader.byte()); // the only core sort here is a module
        HR_CHECK(reader.number(32));
        return {};
    case sort_value: {
        HR_TRY(const auto form, reader.byte());
        // An index, or a type: either is a number.
        if (form > 1)
            return malformed(fmt::format("a value's bound has the unknown form {}", form));
        HR_CHECK(reader.number(33));
        return {};
    }
    case sort_type:
        return skip_bound(reader);
    case sort_function:
    case sort_component:
    case sort_instance:
        HR_CHECK(reader.number(32));
        return {};
    default:
        return malformed(fmt::format("an import or export has the unknown sort {}", sort));
    }
}

Result<void> read_component_imports(Reader reader, WasmModule& module) {
    HR_TRY(const auto count, reader.number(32));
    for (std::uint64_t i = 0; i < count; ++i) {
        HR_TRY(auto name, read_component_name(reader));
        HR_CHECK(skip_extern_description(reader));
        module.imports.push_back({std::move(name), ""});
    }
    return {};
}

Result<void> read_component_exports(Reader reader, WasmModule& module) {
    HR_TRY(const auto count, reader.number(32));
    for (std::uint64_t i = 0; i < count; ++i) {
        HR_TRY(auto name, read_component_name(reader));
        HR_TRY(const auto sort, reader.byte());
        if (sort == sort_core)
            HR_CHECK(reader.byte());
        HR_CHECK(reader.number(32));
        HR_TRY(const auto has_description, reader.byte());
        if (has_description > 1)
            return malformed("an export's description has an unknown form");
        if (has_description == 1)
            HR_CHECK(skip_extern_description(reader));
        if (sort == sort_function || sort == sort_instance)
            module.exports.push_back(std::move(name));
    }
    return {};
}

/// Hands each section's content to `read`, which knows which it wants.
template <class Read>
Result<void> read_sections(Reader reader, const Read& read) {
    while (!reader.is_at_end()) {
        HR_TRY(const auto id, reader.byte());
        HR_TRY(const auto size, reader.number(32));
        HR_TRY(const auto content, reader.block(size));
        HR_CHECK(read(id, Reader(content)));
    }
    return {};
}

/// Whether `name`, when it is one of WASI's interfaces, is one of WASI 0.2's.
/// Source: WASI 0.2, its packages
bool is_known_to_components(std::string_view name) {
    constexpr std::string_view wasi = "wasi:";
    constexpr std::array<std::string_view, 7> packages{"cli", "clocks", "filesystem", "http",
                                                       "io",  "random", "sockets"};
    if (!name.starts_with(wasi))
        return true;
    const auto package = name.substr(wasi.size(), name.find('/') - wasi.size());
    return std::find(packages.begin(), packages.end(), package) != packages.end() &&
           name.find("@0.2.") != std::string_view::npos;
}

bool offers(const WasmModule& module, std::string_view name) {
    return std::find(module.exports.begin(), module.exports.end(), name) != module.exports.end();
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
    module.is_component = version == component_version;
    if (!module.is_component && version != core_version)
        return fail(ErrorCode::unsupported,
                    fmt::format("The WebAssembly module has the unknown version {:#x}", version));
    HR_CHECK(read_sections(reader, [&](std::uint8_t id, const Reader& content) -> Result<void> {
        if (module.is_component) {
            if (id == component_import_section)
                return read_component_imports(content, module);
            return id == component_export_section ? read_component_exports(content, module)
                                                  : Result<void>();
        }
        if (id == import_section)
            return read_imports(content, module);
        return id == export_section ? read_exports(content, module) : Result<void>();
    }));
    return module;
}

Result<protocol::World> guess_world(const WasmModule& module) {
    if (module.is_component) {
        // Which functions and other namespaces there are is the engine's to check. What of WASI no
        // world has is known here.
        const auto unknown =
            std::find_if(module.imports.begin(), module.imports.end(),
                         [](const auto& import) { return !is_known_to_components(import.module); });
        if (unknown != module.imports.end())
            return fail(ErrorCode::unsupported,
                        fmt::format("No world offers the import {}", unknown->module),
                        "components have the interfaces of WASI 0.2");
        if (std::any_of(module.exports.begin(), module.exports.end(), [](const auto& name) {
                return name.starts_with("wasi:http/incoming-handler@0.2.");
            }))
            return protocol::World::wasi_http;
        return fail(ErrorCode::unsupported,
                    "This component exports no wasi:http/incoming-handler@0.2",
                    "components answer HTTP here; build a program for the target wasm32-wasip1");
    }
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

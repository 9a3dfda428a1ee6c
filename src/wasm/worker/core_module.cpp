// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "host_runner/wasm/wasi/preview1.hpp"
#include "worlds.hpp"

namespace host_runner::wasm::worker {

Result<Program> load_program(const Engine& engine, Start& start) {
    HR_TRY(const auto module, engine.load(start.artifact));
    std::string().swap(start.artifact);
    HR_TRY(const auto linker, engine.make_linker(wasi::preview1_functions()));
    return linker.bind(module);
}

void add_names(std::vector<std::pair<std::string, std::string>>& environment,
               const std::vector<std::string>& names) {
    const auto add = [&](const std::string& name, std::string value) {
        if (std::none_of(environment.begin(), environment.end(),
                         [&](const auto& each) { return each.first == name; }))
            environment.emplace_back(name, std::move(value));
    };
    add("FD_COUNT", fmt::format("{}", names.size()));
    add("FD_NAMES", fmt::format("{}", fmt::join(names, ":")));
}

Result<wasi::File> open_root() {
    return wasi::open_directory("/", "/", wasi::Access::read_write);
}

int visible_exit_code(std::uint32_t code) noexcept {
    constexpr std::uint32_t visible_bits = 0xFF;
    return code != 0 && (code & visible_bits) == 0 ? 1 : static_cast<int>(code & visible_bits);
}

std::string describe_trap(const Outcome& outcome) {
    constexpr std::size_t max_shown_frames = 16;
    auto text = fmt::format("The module trapped: {}", outcome.message);
    const auto shown = std::min(outcome.backtrace.size(), max_shown_frames);
    for (std::size_t i = 0; i < shown; ++i) {
        const auto& frame = outcome.backtrace[i];
        text += fmt::format("\n  at {} (function {}, byte {:#x})",
                            frame.function.empty() ? "?" : frame.function, frame.function_index,
                            frame.module_offset);
    }
    return text;
}

} // namespace host_runner::wasm::worker

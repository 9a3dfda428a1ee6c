// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include <time.h>

#include "answer.hpp"

namespace host_runner::wasm::wasi {

/// The host's clock for a guest's number: 0 real time, 1 monotonic.
/// BADF: 2 and 3, the CPU times, as in wasmtime; INVAL: there is no such clock
[[nodiscard]] Answer<clockid_t> host_clock(std::uint32_t id);

[[nodiscard]] std::uint64_t nanoseconds(const timespec& time) noexcept;

/// The clock's time now, in nanoseconds.
[[nodiscard]] Answer<std::uint64_t> read_clock(clockid_t clock);

} // namespace host_runner::wasm::wasi

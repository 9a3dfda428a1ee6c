// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string_view>

#include "host_runner/base/error.hpp"

namespace host_runner::host {

/// The bytes in "MemTotal:       32812345 kB" (proc_meminfo(5); the unit is always kB and means
/// KiB), of the first line that begins with `key`. @errors corrupt_data: no such line
[[nodiscard]] Result<std::uint64_t> find_meminfo_line(std::string_view text, std::string_view key);

} // namespace host_runner::host

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Every exit code of `host_runner`. --help and the man page are made from exit_code_table().

#include <span>
#include <string_view>

#include "host_runner/base/error.hpp"

namespace host_runner {

enum class ExitCode : int {
    success = 0,
    failure = 1,
    usage = 2,
    not_found = 3,
    conflict = 4,
    permission = 5,
    unsupported = 6,
    exhausted = 7,
    timeout = 8,
    corrupt = 9,
    qemu_start_failed = 10,
    qemu_died = 11,
    guest_boot_error = 12,
    guest_panic = 13,
    guest_reset = 14,
    stopped_by_force = 15,
};

struct ExitCodeRow {
    ExitCode code;
    std::string_view name;    ///< As in JSON output, e.g. "qemu_died".
    std::string_view meaning; ///< One sentence.
};

/// All rows in ascending order.
[[nodiscard]] std::span<const ExitCodeRow> exit_code_table() noexcept;

[[nodiscard]] std::string_view to_string(ExitCode code) noexcept;

/// The exit code for an error that ends a command.
[[nodiscard]] ExitCode exit_code_for(ErrorCode code) noexcept;

} // namespace host_runner

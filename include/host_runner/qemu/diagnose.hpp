// SPDX-License-Identifier: Apache-2.0
#pragma once

/// QEMU's and KVM's messages as sentences with a remedy.
///
///     if (const auto known = diagnose(stderr_text))
///         log::error("{} ({}): {}", known->meaning, known->remedy, known->raw_line);

#include <optional>
#include <string>
#include <string_view>

namespace host_runner::qemu {

struct Diagnosis {
    std::string meaning;  ///< What it means, a sentence without final stop.
    std::string remedy;   ///< What to do.
    std::string raw_line; ///< QEMU's own line.
};

/// The first line of `stderr_text` that the table knows (warnings that mean nothing are skipped);
/// nullopt when none is known.
[[nodiscard]] std::optional<Diagnosis> diagnose(std::string_view stderr_text);

/// The last non-empty line that is no ignorable warning; empty when there is none.
[[nodiscard]] std::string last_relevant_line(std::string_view stderr_text);

} // namespace host_runner::qemu

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Compiles modules in a short-lived process of its own: what a hostile module does to the compiler
/// ends there.

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "host_runner/base/error.hpp"
#include "host_runner/base/process.hpp"

namespace host_runner::wasm {

struct CompileLimits {
    /// Whom the child becomes; nullopt: it stays who we are.
    std::optional<ProcessSpec::User> user;
    std::uint64_t module_bytes = std::uint64_t{64} << 20;
    std::uint64_t artifact_bytes = std::uint64_t{512} << 20;
    std::uint64_t memory_bytes = std::uint64_t{2}
                                 << 30; ///< Address space of the child (RLIMIT_AS).
    std::chrono::seconds cpu{60};       ///< Processor time of all its threads (RLIMIT_CPU).
    std::chrono::seconds wall{120};
};

/// The body of the child: `PROGRAM ARGUMENTS...` as compile_in_child() starts it, after the
/// subcommand's name. Reads the module from descriptor 0, writes the artifact to descriptor 3, sets
/// its own limits first.
/// @return the process's exit code (base/exit_code.hpp); messages go to stderr
[[nodiscard]] int compile_main(std::span<const std::string> arguments);

/// Compiles what `module_fd` holds (from its current position) into `artifact_fd`.
/// @param command how to start the child, e.g. {"/proc/self/exe", "compile"}; the limits are
/// appended Both descriptors are borrowed. Waits for the child; may be called from any thread that
/// outlives the call.
/// @errors corrupt_data: not a valid module; unsupported: it needs a proposal that is off;
/// resource_exhausted: too large, or
///         the child used up its processor time or memory; timeout: wall time; internal: the child
///         died otherwise
[[nodiscard]] Result<void> compile_in_child(ProcessLauncher& launcher,
                                            const std::vector<std::string>& command, int module_fd,
                                            int artifact_fd, const CompileLimits& limits = {});

} // namespace host_runner::wasm

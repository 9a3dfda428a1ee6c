// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "verbs.hpp"

namespace host_runner::cli {

/// `run --detach`: the same command line again as a process of a session of its own, whose JSON
/// events come back through a pipe. Returns once it has got as far as --wait says, with the id and
/// the ports printed, or with its exit code when it ended before. A SIGINT or SIGTERM meanwhile is
/// passed on to it.
///
/// Its stderr goes to a file in the state folder, which moves to the instance folder (runner.log)
/// as soon as there is one.
[[nodiscard]] VerbResult run_detached(const Context& context);

} // namespace host_runner::cli

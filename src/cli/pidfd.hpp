// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Other processes by descriptor, so that a pid that is used again is never taken for the old one.

#include <chrono>

#include "host_runner/base/error.hpp"
#include "host_runner/base/process.hpp"
#include "host_runner/base/unique_fd.hpp"

namespace host_runner::cli {

/// A descriptor of exactly that process, readable once it has ended.
/// @errors not_found: it has ended
[[nodiscard]] Result<UniqueFd> open_process(const ProcessIdentity& identity);

/// @param timeout negative: wait for ever
/// @errors timeout
[[nodiscard]] Result<void> wait_for_end(const UniqueFd& pidfd, std::chrono::milliseconds timeout);

} // namespace host_runner::cli

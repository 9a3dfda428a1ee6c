// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Waiting that the deadline of the call ends.

#include <chrono>
#include <cstdint>
#include <optional>
#include <vector>

#include <poll.h>

#include "answer.hpp"
#include "host_runner/wasm/call_deadline.hpp"

namespace host_runner::wasm::wasi {

using TimePoint = std::chrono::steady_clock::time_point;

enum class Waited : std::uint8_t { ready, limit };

/// Traps with `interrupted` when the call is cancelled or its deadline has passed.
[[nodiscard]] Answer<void> check_deadline(const CallDeadline& deadline);

/// Waits for `events` (of poll) on `fd`, at most until `limit`. Traps as check_deadline() does.
[[nodiscard]] Answer<Waited> wait_for(const CallDeadline& deadline, int fd, short events,
                                      std::optional<TimePoint> limit = {});

/// The same for many: fills in `revents`. Without descriptors it waits for the limit.
[[nodiscard]] Answer<Waited> wait_for_any(const CallDeadline& deadline, std::vector<pollfd>& fds,
                                          std::optional<TimePoint> limit);

} // namespace host_runner::wasm::wasi

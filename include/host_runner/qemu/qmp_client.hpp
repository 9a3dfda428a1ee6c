// SPDX-License-Identifier: Apache-2.0
#pragma once

/// QMP on the event loop: greeting, capabilities, commands, events.
///
///     HR_TRY(auto qmp, QmpClient::connect(*loop, path, on_event, on_closed));
///     qmp->execute("query-status", "", std::chrono::seconds(5), [](Result<std::string> reply) {
///         ...
///     });
///
/// All members are for the loop's thread.

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include <sys/types.h>

#include "host_runner/base/error.hpp"
#include "host_runner/base/event_loop.hpp"

namespace host_runner::qemu {

/// Why a VM shut down, as far as the runner tells cases apart.
/// Source: ShutdownCause in QEMU's qapi/run-state.json
enum class ShutdownReason {
    guest_shutdown,
    guest_reset,
    guest_panic,
    host_quit, ///< QMP quit
    host_signal,
    host_error,
    other,
};

struct QmpEvent {
    std::string name;      ///< e.g. "SHUTDOWN"
    std::string data_json; ///< The event's data object, "{}" when absent.
};

/// From a SHUTDOWN event's data. Unknown reasons give `other`.
[[nodiscard]] ShutdownReason shutdown_reason(const std::string& data_json);
[[nodiscard]] std::string_view to_string(ShutdownReason reason) noexcept;
/// The `info.message` of a GUEST_PANICKED event, printable ASCII only and at most 256 characters;
/// empty when absent.
[[nodiscard]] std::string panic_message(const std::string& data_json);
/// The thread of each vCPU by its index, of what query-cpus-fast returned; at most 4096.
/// @errors corrupt_data
[[nodiscard]] Result<std::map<std::uint32_t, pid_t>> vcpu_threads(const std::string& return_json);

class QmpClient {
public:
    using EventHandler = std::function<void(const QmpEvent&)>;
    using Reply = std::function<void(Result<std::string> return_json)>;
    using ClosedHandler = std::function<void()>;

    /// Connects to QEMU's socket (nonblocking afterwards) and negotiates; commands may be queued
    /// at once. All callbacks run on the loop, never inside this call; any of them may destroy the
    /// client. `on_closed` comes once, after the replies of all pending commands.
    /// @errors unavailable: nobody listens yet (try again); invalid_argument: the path is too long
    ///         for a unix socket; io_error
    [[nodiscard]] static Result<std::unique_ptr<QmpClient>> connect(EventLoop& loop,
                                                                    const std::string& socket_path,
                                                                    EventHandler on_event,
                                                                    ClosedHandler on_closed);
    QmpClient(const QmpClient&) = delete;
    QmpClient& operator=(const QmpClient&) = delete;
    ~QmpClient(); ///< Pending replies are dropped without a call.

    /// Sends a command; `arguments_json` may be empty. Exactly one call of `reply` follows: the
    /// return value as JSON text, or an error: unavailable (connection closed), timeout,
    /// corrupt_data (not QMP, or above the 16 MiB cap), invalid_argument (`arguments_json` is no
    /// JSON object), internal with QEMU's own words. A reply that comes after its timeout is
    /// dropped.
    void execute(const std::string& command, const std::string& arguments_json,
                 std::chrono::milliseconds timeout, Reply reply);

private:
    struct Impl;
    explicit QmpClient(std::shared_ptr<Impl> impl);
    std::shared_ptr<Impl> impl_; // shared with the callback that runs while the client is destroyed
};

} // namespace host_runner::qemu

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The state of one guest instance for WASI: arguments, environment, files, deadline, exit code.
///
///     HR_TRY(auto context, wasi::Context::create(std::move(options)));
///     context->set_deadline({.at = now + limit, .cancel_fd = event_fd});
///     ... call the guest with HostCall::state = context.get() ...
///     if (ended_in_order)
///         context->close_files();
///     const auto code = context->exit_code();

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "host_runner/base/error.hpp"
#include "host_runner/wasm/call_deadline.hpp"
#include "host_runner/wasm/wasi/files.hpp"

namespace host_runner::wasm::wasi {

struct ContextOptions {
    std::vector<std::string> arguments = {}; ///< argv[0] first.
    /// Name and value; nothing of the host's own environment is added.
    std::vector<std::pair<std::string, std::string>> environment = {};
    std::vector<File> files = {};     ///< The position is the descriptor's number.
    std::size_t max_open_files = 256; ///< Then MFILE; 1 to 4096.
};

/// One thread at a time may use a context, its functions and the calls of its guest. Destroying it
/// closes all files without ceremony, so that a TLS peer can tell a trap from an orderly end.
class Context {
public:
    struct State; ///< For the functions of preview 1 only.

    explicit Context(std::unique_ptr<State> state) noexcept;
    Context(const Context&) = delete;
    Context& operator=(const Context&) = delete;
    ~Context();

    /// @errors invalid_argument: arguments or environment that are not UTF-8, hold a NUL or are
    ///         over 1 MiB in all, a name that is empty or holds '=', a file without a descriptor,
    ///         more files than max_open_files; io_error: a descriptor that is not usable
    [[nodiscard]] static Result<std::unique_ptr<Context>> create(ContextOptions options);

    /// What ends the calls that wait, from now on; the cancel descriptor is borrowed. A context
    /// starts without a limit.
    void set_deadline(const CallDeadline& deadline) noexcept;

    /// Closes all files as a guest does that closes them itself: TLS peers get what is still to be
    /// sent and a close_notify, for at most a second in all. For guests that ended in order.
    void close_files() noexcept;

    /// What the guest gave to proc_exit; empty when it did not call it. All 32 bits are the
    /// guest's.
    [[nodiscard]] std::optional<std::uint32_t> exit_code() const noexcept;

    [[nodiscard]] State& state() noexcept;

private:
    std::unique_ptr<State> state_;
};

} // namespace host_runner::wasm::wasi

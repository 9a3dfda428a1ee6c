// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

namespace host_runner {

/// The service manager (systemd) that started this process, if one did and wants to be told.
///
///     auto manager = ServiceManager::from_environment();
///     manager.tell("READY=1\nSTATUS=serving");
///
/// Source: sd_notify(3), whose protocol may be spoken without libsystemd.
class ServiceManager {
public:
    /// Takes NOTIFY_SOCKET out of the environment: no child is to speak for us. At the start of a
    /// program, before other threads.
    [[nodiscard]] static ServiceManager from_environment();
    /// @param socket a path, or '@' and an abstract name; empty: nobody is told
    explicit ServiceManager(std::string socket) : socket_(std::move(socket)) {}

    [[nodiscard]] bool is_there() const noexcept {
        return !socket_.empty();
    }
    /// Assignments, one per line. One that cannot be sent is lost: the manager's own time limits
    /// find that out. Never waits.
    void tell(std::string_view assignments) const noexcept;

private:
    std::string socket_;
};

} // namespace host_runner

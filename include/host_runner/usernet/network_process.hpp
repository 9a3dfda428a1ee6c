// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The program that makes one VM's user network: `user_network` or passt, on one end of a socket
/// pair whose other end QEMU gets.
///
///     HR_TRY(auto network, NetworkProcess::start(launcher, user_network_command(path, settings)));
///     ...                                                   // it sets itself up meanwhile
///     HR_TRY(auto socket, network.wait_ready(timeout));     // for QEMU
///
/// Call from the main thread: its death signal is tied to the thread that starts it.

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "host_runner/base/error.hpp"
#include "host_runner/base/process.hpp"
#include "host_runner/base/unique_fd.hpp"
#include "host_runner/usernet/settings.hpp"

namespace host_runner::usernet {

struct NetworkCommand {
    std::vector<std::string> argv; ///< Frames on descriptor `frames_fd`.
    /// From all that the program has said so far; nullopt: wait for more.
    std::function<std::optional<Status>(std::string_view text, bool ended)> read_status;
};

/// PREFIX/lib/host-runner/user_network of the running PREFIX/bin/PROGRAM; empty: not there.
[[nodiscard]] std::string find_user_network();
[[nodiscard]] NetworkCommand user_network_command(const std::string& path,
                                                  const Settings& settings);

class NetworkProcess {
public:
    /// Returns once the program runs, not when it is ready. @errors of the launcher
    [[nodiscard]] static Result<NetworkProcess> start(ProcessLauncher& launcher,
                                                      const NetworkCommand& command);
    NetworkProcess(NetworkProcess&&) noexcept = default;
    NetworkProcess& operator=(NetworkProcess&&) = delete;
    NetworkProcess(const NetworkProcess&) = delete;
    NetworkProcess& operator=(const NetworkProcess&) = delete;
    /// Kills and reaps the program.
    ~NetworkProcess();

    /// Waits until the ports are bound and all is set up. @return the socket for QEMU
    /// @errors already_exists: a host port is taken (named); unsupported, internal: the program
    ///         cannot be used, in its words; timeout
    [[nodiscard]] Result<UniqueFd> wait_ready(std::chrono::milliseconds timeout);

    /// Readable when the program has ended.
    [[nodiscard]] int pidfd() const noexcept {
        return child_.pidfd.get();
    }
    [[nodiscard]] pid_t pid() const noexcept {
        return child_.pid;
    }
    /// Readable when the program says more, which is nobody's, but must not fill the pipe.
    [[nodiscard]] int output() const noexcept {
        return output_.get();
    }
    /// Reads what is there and forgets it. @return false: nothing more will come
    [[nodiscard]] bool drain_output() const;
    /// After pidfd() is readable.
    [[nodiscard]] Result<ExitStatus> reap();

private:
    NetworkProcess() = default;
    [[nodiscard]] Result<Status> read_status(std::chrono::milliseconds timeout);

    std::string name_;
    std::function<std::optional<Status>(std::string_view, bool)> parse_;
    ChildProcess child_;
    UniqueFd for_qemu_;
    UniqueFd output_;
};

} // namespace host_runner::usernet

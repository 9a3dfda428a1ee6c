// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The state folder: which instances there are and what holds for each right now.

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "host_runner/base/error.hpp"
#include "host_runner/instance/control.hpp"
#include "host_runner/instance/record.hpp"

namespace host_runner::instance {

/// $HOST_RUNNER_HOME, else /var/lib/host-runner for root, else $XDG_STATE_HOME/host-runner, else
/// ~/.local/state/host-runner. Absolute; not made here.
/// @errors invalid_argument: a relative HOST_RUNNER_HOME; not_found: no home folder
[[nodiscard]] Result<std::string> state_directory();

/// Paths of one instance. Its folder holds the marker instance.json.
struct InstancePaths {
    explicit InstancePaths(std::string instance_directory);
    std::string directory;
    [[nodiscard]] std::string record() const; ///< instance.json
    [[nodiscard]] std::string lock() const;
    [[nodiscard]] std::string app() const; ///< Files for the guest.
    [[nodiscard]] std::string share_image() const;
    [[nodiscard]] std::string data_disk() const; ///< disk.qcow2
    [[nodiscard]] std::string instance_info() const;
    [[nodiscard]] std::string qmp_socket() const;
    [[nodiscard]] std::string control_socket() const;
    [[nodiscard]] std::string console_socket() const;
    [[nodiscard]] std::string channel_socket(unsigned port) const; ///< ch<n>.sock
    [[nodiscard]] std::string serial_log() const;
    [[nodiscard]] std::string events_log() const;
    [[nodiscard]] std::string device_journal() const; ///< devices.json
};

enum class State { starting, running, stopping, stopped, failed };
[[nodiscard]] std::string_view to_string(State state) noexcept;

/// One instance as `list` and `inspect` show it.
struct Instance {
    Record record;
    State state = State::stopped;
    std::optional<LiveStatus> live; ///< The runner's own answer; nullopt when none runs or answers.
    std::optional<End> end;         ///< Set when none runs (runner_died when none was recorded).
};

class Registry {
public:
    explicit Registry(std::string state_directory);

    /// All instances, oldest first. Unreadable ones are reported through `on_problem` and left out.
    /// Asks live runners side by side, each with a short deadline.
    [[nodiscard]] Result<std::vector<Instance>>
    list(const std::function<void(const Error&)>& on_problem = {}) const;

    /// By id, unique prefix of an id (>= 1 digit), or name.
    /// @errors not_found: with what there is; invalid_argument: ambiguous, with the candidates
    [[nodiscard]] Result<Instance> find(std::string_view reference) const;

    /// Removes a stopped instance's folder: record, logs, and the disk and identity of a named one.
    /// @errors wrong_state: it runs, or has not given its devices back
    [[nodiscard]] Result<void> remove(const Instance& instance) const;

    /// Removes the records of ended temporary instances but the newest `keep`; gives their ids.
    /// Those that have not given their devices back stay.
    [[nodiscard]] Result<std::vector<std::string>> prune(std::size_t keep) const;

    [[nodiscard]] InstancePaths paths(const std::string& id) const;
    [[nodiscard]] std::string instances_directory() const;
    [[nodiscard]] std::string cache_directory() const;

private:
    std::string root_;
};

} // namespace host_runner::instance

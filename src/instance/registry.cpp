// SPDX-License-Identifier: Apache-2.0
#include "host_runner/instance/registry.hpp"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>

#include <pwd.h>
#include <unistd.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "host_runner/base/files.hpp"
#include "host_runner/instance/claims.hpp"
#include "state_folder.hpp"

namespace host_runner::instance {

namespace {

/// For the answers of all runners together: a living one answers within a millisecond.
constexpr std::chrono::milliseconds status_deadline{1'000};

/// The value of a variable that is set and not empty.
std::optional<std::string> variable(const char* name) {
    const char* value = std::getenv(name); // NOLINT(concurrency-mt-unsafe): nobody sets any
    if (value == nullptr || *value == '\0')
        return std::nullopt;
    return std::string(value);
}

/// What one look at the folder says.
struct Sight {
    Record record;
    bool is_locked = false;
};

/// Reads record and lock so that they belong together: an end is written before the lock goes, and
/// taken out of the record only after the lock is there.
Result<Sight> look_at(const InstancePaths& paths) {
    for (;;) {
        Sight sight;
        HR_TRY(sight.is_locked, is_file_locked(paths.lock()));
        HR_TRY(sight.record, read_record(paths));
        HR_TRY(const bool is_locked_now, is_file_locked(paths.lock()));
        if (is_locked_now == sight.is_locked)
            return sight;
    }
}

End derived_end(const Record& record, const std::string& boot_id) {
    End end;
    end.reason = EndReason::runner_died;
    end.exit_code = ExitCode::failure;
    end.detail = record.runner.boot_id == boot_id
                     ? fmt::format("host_runner (pid {}) ended without a word; QEMU ended with it",
                                   record.runner.pid)
                     : "the host was restarted while the VM ran";
    return end;
}

State state_of(const LiveStatus& status) {
    if (status.phase == "ready")
        return State::running;
    if (status.phase == "stopping")
        return State::stopping;
    return State::starting;
}

State state_of(const End& end) {
    switch (end.reason) {
    case EndReason::guest_shutdown:
    case EndReason::stop_requested:
    case EndReason::killed_by_force:
        return State::stopped;
    default:
        return State::failed;
    }
}

std::string label(const Record& record) {
    return record.name.empty() ? record.id : fmt::format("{} ({})", record.id, record.name);
}

} // namespace

Result<std::string> state_directory() {
    if (auto home = variable("HOST_RUNNER_HOME")) {
        if (home->front() != '/')
            return fail(
                ErrorCode::invalid_argument,
                fmt::format("HOST_RUNNER_HOME is '{}', which is not an absolute path", *home),
                "HOST_RUNNER_HOME=/var/lib/host-runner");
        return *home;
    }
    if (::geteuid() == 0)
        return "/var/lib/host-runner";
    // The XDG specification wants relative values ignored.
    if (const auto state = variable("XDG_STATE_HOME"); state && state->front() == '/')
        return join_path(*state, "host-runner");
    auto home = variable("HOME");
    if (!home)
        if (const passwd* entry = ::getpwuid(::geteuid());
            entry != nullptr) // NOLINT(concurrency-mt-unsafe)
            home = entry->pw_dir;
    if (!home || home->front() != '/')
        return fail(ErrorCode::not_found,
                    fmt::format("User {} has no home folder for the state of VMs", ::geteuid()),
                    "set HOST_RUNNER_HOME to a folder of your own");
    return join_path(*home, ".local/state/host-runner");
}

InstancePaths::InstancePaths(std::string instance_directory)
    : directory(std::move(instance_directory)) {}
std::string InstancePaths::record() const {
    return join_path(directory, instance_marker);
}
std::string InstancePaths::lock() const {
    return join_path(directory, "lock");
}
std::string InstancePaths::app() const {
    return join_path(directory, "app");
}
std::string InstancePaths::share_image() const {
    return join_path(directory, "share.img");
}
std::string InstancePaths::data_disk() const {
    return join_path(directory, "disk.qcow2");
}
std::string InstancePaths::instance_info() const {
    return join_path(directory, "instance_info");
}
std::string InstancePaths::qmp_socket() const {
    return join_path(directory, "qmp.sock");
}
std::string InstancePaths::control_socket() const {
    return join_path(directory, "control.sock");
}
std::string InstancePaths::console_socket() const {
    return join_path(directory, "console.sock");
}
std::string InstancePaths::channel_socket(unsigned port) const {
    return join_path(directory, fmt::format("ch{}.sock", port));
}
std::string InstancePaths::serial_log() const {
    return join_path(directory, "serial.log");
}
std::string InstancePaths::events_log() const {
    return join_path(directory, "events.jsonl");
}

std::string InstancePaths::device_journal() const {
    return join_path(directory, "devices.json");
}

std::string_view to_string(State state) noexcept {
    switch (state) {
    case State::starting:
        return "starting";
    case State::running:
        return "running";
    case State::stopping:
        return "stopping";
    case State::stopped:
        return "stopped";
    case State::failed:
        return "failed";
    }
    return "unknown";
}

Registry::Registry(std::string state_directory) : root_(std::move(state_directory)) {}

std::string Registry::instances_directory() const {
    return join_path(root_, "instances");
}

std::string Registry::cache_directory() const {
    return join_path(root_, "cache");
}

InstancePaths Registry::paths(const std::string& id) const {
    return InstancePaths(join_path(instances_directory(), id));
}

Result<std::vector<Instance>>
Registry::list(const std::function<void(const Error&)>& on_problem) const {
    HR_TRY(const auto ids, instance_ids(*this));
    std::vector<Instance> instances;
    std::vector<std::size_t> live;
    std::vector<std::string> sockets;
    const auto boot_id = current_boot_id().value_or("");
    const auto settle = [&](Instance& instance, const Sight& sight) {
        instance.record = sight.record;
        if (sight.is_locked) {
            instance.state = State::starting;
            return;
        }
        instance.end = sight.record.end.value_or(derived_end(sight.record, boot_id));
        instance.state = state_of(*instance.end);
    };
    for (const auto& id : ids) {
        const auto sight = look_at(paths(id));
        if (!sight) {
            // Removed since its name was read.
            if (sight.error().code != ErrorCode::not_found && on_problem)
                on_problem(sight.error());
            continue;
        }
        settle(instances.emplace_back(), *sight);
        if (sight->is_locked) {
            live.push_back(instances.size() - 1);
            sockets.push_back(paths(id).control_socket());
        }
    }
    auto answers = ask_statuses(sockets, status_deadline);
    for (std::size_t i = 0; i < live.size(); ++i) {
        auto& instance = instances[live[i]];
        if (answers[i]) {
            instance.live = std::move(*answers[i]);
            instance.state = state_of(*instance.live);
            continue;
        }
        // It may have ended while we asked. Else it runs: without a socket it still prepares, with
        // one it is busy or hangs.
        if (const auto sight = look_at(paths(instance.record.id))) {
            settle(instance, *sight);
            const int reason = answers[i].error().sys_errno;
            if (sight->is_locked && reason != ENOENT && reason != ECONNREFUSED)
                instance.state = State::running;
        }
    }
    std::stable_sort(instances.begin(), instances.end(), [](const auto& a, const auto& b) {
        return a.record.created_ms < b.record.created_ms;
    });
    return instances;
}

Result<Instance> Registry::find(std::string_view reference) const {
    std::optional<Error> problem;
    HR_TRY(auto instances, list([&](const Error& error) { problem = error; }));
    std::vector<Instance> matches;
    for (auto& instance : instances)
        if (!reference.empty() &&
            (instance.record.name == reference || instance.record.id.starts_with(reference)))
            matches.push_back(std::move(instance));
    // A name wins over ids that begin like it.
    for (auto& match : matches)
        if (match.record.name == reference)
            return std::move(match);
    if (matches.size() == 1)
        return std::move(matches.front());
    std::vector<std::string> labels;
    for (const auto& instance : matches.empty() ? instances : matches)
        labels.push_back(label(instance.record));
    if (!matches.empty())
        return fail(ErrorCode::invalid_argument,
                    fmt::format("'{}' fits {} instances: {}", reference, matches.size(),
                                fmt::join(labels, ", ")),
                    "give more digits of the id");
    std::string hint = labels.empty() ? std::string("there are none at all")
                                      : fmt::format("there are: {}", fmt::join(labels, ", "));
    if (problem)
        hint += fmt::format("; one cannot be read: {}", problem->message);
    return fail(ErrorCode::not_found,
                fmt::format("There is no instance with the id or name '{}'", reference),
                std::move(hint));
}

Result<void> Registry::remove(const Instance& instance) const {
    HR_TRY(const auto claims, Claims::begin(*this));
    return remove_stopped(*this, instance.record.id);
}

Result<std::vector<std::string>> Registry::prune(std::size_t keep) const {
    HR_TRY(const auto claims, Claims::begin(*this));
    HR_TRY(const auto ids, instance_ids(*this));
    std::vector<Record> ended;
    for (const auto& id : ids)
        if (auto sight = look_at(paths(id));
            sight && !sight->is_locked && sight->record.name.empty() && !holds_devices(paths(id)))
            ended.push_back(std::move(sight->record));
    std::stable_sort(ended.begin(), ended.end(),
                     [](const auto& a, const auto& b) { return a.created_ms > b.created_ms; });
    std::vector<std::string> removed;
    for (std::size_t i = keep; i < ended.size(); ++i) {
        HR_CHECK(remove_stopped(*this, ended[i].id));
        removed.push_back(ended[i].id);
    }
    return removed;
}

} // namespace host_runner::instance

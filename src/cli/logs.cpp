// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cerrno>
#include <limits>
#include <optional>

#include <poll.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <fmt/format.h>

#include "guest_stream.hpp"
#include "log_follower.hpp"
#include "pidfd.hpp"
#include "terminal.hpp"
#include "verbs.hpp"

namespace host_runner::cli {

namespace {

struct LogsOptions {
    bool follow = false;
    std::optional<std::uint32_t> tail;
};

/// Output for people passes the filter; what is piped or stored stays as it is.
class Output {
public:
    Result<void> write(std::string_view bytes) {
        return print_out(is_terminal_ ? filter_.pass(bytes) : std::string(bytes));
    }

private:
    bool is_terminal_ = ::isatty(STDOUT_FILENO) == 1;
    TerminalFilter filter_;
};

struct OpenLog {
    LogFollower follower;
    std::string heading; ///< Empty where only one log is shown.
};

/// Waits until one of the files changes. @return false when the runner has ended
Result<bool> wait_for_change(const UniqueFd& changes, const UniqueFd& runner) {
    std::array<pollfd, 2> waiting{{{changes.get(), POLLIN, 0}, {runner.get(), POLLIN, 0}}};
    while (::poll(waiting.data(), waiting.size(), -1) < 0)
        if (errno != EINTR)
            return fail_errno("Cannot wait for a log", errno);
    // What changed does not matter: all logs are looked at. So the events are only taken away.
    std::array<char, 16384> events{};
    if (waiting[0].revents != 0 && ::read(changes.get(), events.data(), events.size()) < 0 &&
        errno != EAGAIN && errno != EINTR)
        return fail_errno("Cannot read changes of a log", errno);
    return waiting[1].revents == 0;
}

Result<void> show(std::vector<OpenLog>& logs, Output& output, std::size_t& last_shown) {
    for (std::size_t i = 0; i < logs.size(); ++i) {
        const auto write = [&](std::string_view bytes) -> Result<void> {
            if (!logs[i].heading.empty() && std::exchange(last_shown, i) != i)
                HR_CHECK(output.write(logs[i].heading));
            return output.write(bytes);
        };
        HR_CHECK(logs[i].follower.read_new(write));
    }
    return {};
}

Result<void> show_files(const instance::Instance& one, const std::vector<std::string>& paths,
                        const LogsOptions& options) {
    // The watch comes first, so that nothing appended from here on is missed.
    const UniqueFd changes(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
    if (!changes)
        return fail_errno("Cannot watch logs", errno);
    std::vector<OpenLog> logs;
    for (const auto& path : paths) {
        if (::inotify_add_watch(changes.get(), path.c_str(), IN_MODIFY) < 0 && errno != ENOENT)
            return fail_errno(fmt::format("Cannot watch {}", path), errno);
        HR_TRY(auto follower, LogFollower::open(path, options.tail));
        logs.push_back({std::move(follower),
                        paths.size() > 1 ? fmt::format("==> {} <==\n", path) : std::string()});
    }
    Output output;
    auto last_shown = std::numeric_limits<std::size_t>::max();
    if (!options.follow || one.end)
        return show(logs, output, last_shown);
    const auto runner = open_process(one.record.runner);
    if (!runner && runner.error().code != ErrorCode::not_found)
        return tl::unexpected<Error>(runner.error());
    bool runs = runner.has_value();
    do {
        HR_CHECK(show(logs, output, last_shown));
        if (runs) {
            HR_TRY(runs, wait_for_change(changes, *runner));
            if (!runs) // its last words
                HR_CHECK(show(logs, output, last_shown));
        }
    } while (runs);
    return {};
}

/// @param service empty: all of them
Result<void> show_services(const instance::InstancePaths& paths, const std::string& service,
                           const LogsOptions& options) {
    protocol::LogsRequest request;
    request.service = service;
    request.follow = options.follow;
    request.tail = options.tail;
    Output output;
    Result<void> trouble;
    const auto streamed = stream_from_guest(
        paths, "Logs", protocol::encode_logs_request(request),
        [&](const protocol::StreamItem& item) {
            using Kind = protocol::StreamItem::Kind;
            // Replicas are told apart.
            const bool is_replica = !service.empty() && item.service != service;
            if (item.kind == Kind::out || item.kind == Kind::err)
                trouble = output.write(is_replica ? fmt::format("{} | {}", item.service, item.bytes)
                                                  : item.bytes);
            else if (item.kind == Kind::error)
                trouble = fail(ErrorCode::not_found,
                               fmt::format("The guest has no such log: {}", item.bytes));
            return trouble.has_value();
        });
    // QEMU closes the channel when the VM ends, which is what a follower waits for.
    if (!streamed && !(options.follow && streamed.error().code == ErrorCode::unavailable))
        return streamed;
    return trouble;
}

/// The guest shows nothing for a name that it does not know, so the name is checked here where
/// the runner has been told the services.
Result<void> check_service(const instance::Instance& one, const std::string& service) {
    const auto json = one.live ? one.live->services_json : std::string();
    const auto services = protocol::decode_services(json);
    if (json.empty() || !services || service.empty())
        return {};
    std::vector<std::string> names;
    for (const auto& each : *services) {
        names.push_back(each.name);
        if (each.replica_of == service)
            return {};
    }
    if (std::find(names.begin(), names.end(), service) != names.end())
        return {};
    return fail(ErrorCode::not_found,
                fmt::format("{} has no service '{}'", label(one.record), service),
                names.empty() ? std::string("it has none at all")
                              : fmt::format("it has: {}; other logs are: serial, qemu, events",
                                            fmt::join(names, ", ")));
}

/// Whether it is one of the logs that every instance has, and no service's name.
bool is_log(std::string_view what) {
    constexpr std::array<std::string_view, 4> logs{"serial", "qemu", "events", "services"};
    return std::find(logs.begin(), logs.end(), what) != logs.end();
}

} // namespace

VerbResult run_verb_logs(const Context& context) {
    const auto& settings = context.settings;
    auto service = settings.text("service");
    auto what = context.argument(1);
    if (!service.empty() && !what.empty() && what != "services")
        return fail(
            ErrorCode::invalid_argument,
            fmt::format("logs --service {} and the log {} contradict each other", service, what),
            "give one of the two");
    if (!what.empty() && !is_log(what))
        service = std::exchange(what, "services");
    LogsOptions options;
    options.follow = settings.is_on("follow");
    HR_TRY(options.tail, settings.parsed_if_set("tail", [](std::string_view text) {
        return config::parse_count(text, 0, 1'000'000);
    }));

    HR_TRY(const auto registry, open_registry());
    if (!service.empty() || what == "services") {
        HR_TRY(const auto one, find_running(registry, context.argument(0)));
        HR_CHECK(check_service(one, service));
        HR_CHECK(show_services(registry.paths(one.record.id), service, options));
        return to_int(ExitCode::success);
    }
    HR_TRY(const auto one, registry.find(context.argument(0)));
    const auto paths = registry.paths(one.record.id);
    if (what == "qemu")
        HR_CHECK(show_files(one, {one.record.stdout_log, one.record.stderr_log}, options));
    else
        HR_CHECK(
            show_files(one, {what == "events" ? paths.events_log() : paths.serial_log()}, options));
    return to_int(ExitCode::success);
}

} // namespace host_runner::cli

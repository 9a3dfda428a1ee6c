// SPDX-License-Identifier: Apache-2.0
#include "host_runner/agent/service_supervisor.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <utility>

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <fmt/format.h>

namespace host_runner::agent {

namespace {

using Clock = EventLoop::Clock;
using protocol::DependencyCondition;
using protocol::RestartPolicy;

constexpr int report_fd_in_child = 3;
constexpr int channel_fd_in_child = 4;
constexpr int counters_fd_in_child = 5;
constexpr std::size_t max_report_bytes = 8192;

enum class State { waiting, starting, running, healthy, unhealthy, exited, failed };

std::string_view to_string(State state) noexcept {
    switch (state) {
    case State::waiting:
        return "waiting";
    case State::starting:
        return "starting";
    case State::running:
        return "running";
    case State::healthy:
        return "healthy";
    case State::unhealthy:
        return "unhealthy";
    case State::exited:
        return "exited";
    case State::failed:
        return "failed";
    }
    return "";
}

struct Pipe {
    UniqueFd reader;
    UniqueFd writer;
};

Result<Pipe> make_pipe() {
    std::array<int, 2> fds{};
    if (::pipe2(fds.data(), O_CLOEXEC) != 0)
        return fail_errno("Cannot make a pipe", errno);
    return Pipe{UniqueFd(fds[0]), UniqueFd(fds[1])};
}

/// The two ends of a function's channel; see protocol/invocation.hpp.
Result<Pipe> make_channel() {
    std::array<int, 2> fds{};
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds.data()) != 0)
        return fail_errno("Cannot make a pair of sockets", errno);
    return Pipe{UniqueFd(fds[0]), UniqueFd(fds[1])};
}

} // namespace

std::chrono::milliseconds RestartDelay::after(std::chrono::milliseconds uptime) {
    if (uptime >= times_.reset_after)
        next_ = times_.first;
    return std::exchange(next_, std::min(next_ * 2, times_.longest));
}

/// One run of a health check's command.
struct ServiceSupervisor::Check {
    ChildProcess child;
    EventLoop::TimerId timeout = 0;
    bool timed_out = false;
};

/// One process: a service, or a replica of it.
struct ServiceSupervisor::Service {
    PreparedService prepared;
    std::string name; ///< As users see it; dependencies go by the service's own.
    State state = State::waiting;
    bool has_run = false;         ///< Its program ran at least once.
    bool restart_pending = false; ///< It ended and will be started again.
    std::optional<int> exit_code; ///< Of the last run; 128 + signal as shells count.
    std::uint32_t restarts = 0;
    RestartDelay delay;
    std::string program_sha256;
    std::string certificate_sha256;
    std::shared_ptr<const wasm::worker::Counters> counters; ///< Of a module, from its first start.

    // While a child exists (pid > 0):
    ChildProcess child;
    std::string cgroup;
    UniqueFd report_reader;
    std::string report_text;
    UniqueFd channel; ///< Of a function, until it runs.
    Clock::time_point started_at;
    bool told_to_stop = false;

    EventLoop::TimerId restart_timer = 0;
    EventLoop::TimerId stop_timer = 0;
    EventLoop::TimerId check_timer = 0;
    std::unique_ptr<Check> check;
    bool was_healthy = false; ///< In this run.
    std::uint32_t failed_checks = 0;

    [[nodiscard]] bool is_replica() const noexcept {
        return prepared.service.replicas > 1;
    }
    [[nodiscard]] bool is_function() const noexcept {
        const auto& module = prepared.service.module;
        return module && module->world == protocol::World::function;
    }
    [[nodiscard]] bool is_alive() const noexcept {
        return child.pid > 0;
    }
    [[nodiscard]] bool has_ended() const noexcept {
        return state == State::exited || state == State::failed;
    }
    [[nodiscard]] bool ended_well() const noexcept {
        return state == State::exited && exit_code == 0;
    }
};

ServiceSupervisor::ServiceSupervisor(EventLoop& loop, ProcessLauncher& launcher, LogStore& logs,
                                     Options options, Callbacks callbacks)
    : loop_(loop), launcher_(launcher), logs_(logs), options_(std::move(options)),
      callbacks_(std::move(callbacks)) {}

ServiceSupervisor::~ServiceSupervisor() {
    for (const auto& service : services_) {
        loop_.cancel(service->restart_timer);
        loop_.cancel(service->stop_timer);
        loop_.cancel(service->check_timer);
        drop_check(*service);
        if (!service->is_alive())
            continue;
        kill(*service);
        loop_.unwatch(service->child.pidfd.get());
        if (service->report_reader)
            loop_.unwatch(service->report_reader.get());
        static_cast<void>(reap(service->child));
    }
}

void ServiceSupervisor::start(const std::vector<PreparedService>& services) {
    HR_ASSERT(services_.empty());
    for (const auto& prepared : services)
        for (auto& name : protocol::replica_names(prepared.service)) {
            auto& service = *services_.emplace_back(std::make_unique<Service>());
            service.prepared = prepared;
            service.name = std::move(name);
            service.delay = RestartDelay(options_.restart_times);
            if (service.is_replica())
                logs_.add_replica(prepared.service.name, service.name);
        }
    advance();
}

ServiceSupervisor::Readiness
ServiceSupervisor::readiness(const protocol::AppDependency& dependency) const {
    // Of a service with replicas all count. It is there, as decode_app_compose() assures.
    auto worst = Readiness::met;
    for (const auto& service : services_)
        if (service->prepared.service.name == dependency.service)
            worst = std::max(worst, readiness(*service, dependency.condition));
    return worst;
}

ServiceSupervisor::Readiness ServiceSupervisor::readiness(const Service& needed,
                                                          DependencyCondition condition) {
    const auto when = [](bool met, bool impossible) {
        return met ? Readiness::met : impossible ? Readiness::impossible : Readiness::pending;
    };
    switch (condition) {
    case DependencyCondition::started:
        return when(needed.has_run, needed.has_ended());
    case DependencyCondition::healthy:
        return when(needed.state == State::healthy, needed.has_ended() ||
                                                        needed.state == State::unhealthy ||
                                                        !needed.prepared.service.health_check);
    case DependencyCondition::completed_successfully:
        return when(needed.ended_well(), needed.has_ended());
    }
    return Readiness::impossible;
}

void ServiceSupervisor::advance() {
    for (bool changed = true; changed && !stopping_;) {
        changed = false;
        for (const auto& service : services_) {
            if (service->state != State::waiting || service->restart_pending)
                continue;
            bool all_met = true;
            const protocol::AppDependency* hopeless = nullptr;
            for (const auto& dependency : service->prepared.service.depends_on) {
                const auto status = readiness(dependency);
                all_met = all_met && status == Readiness::met;
                if (status == Readiness::impossible)
                    hopeless = &dependency;
            }
            if (hopeless != nullptr)
                fail_service(*service, fmt::format("it waits for {}, which did not get there",
                                                   hopeless->service));
            else if (all_met)
                launch(*service);
            else
                continue;
            changed = true;
        }
    }
    report();
    look_for_the_end();
}

void ServiceSupervisor::launch(Service& service) {
    const auto& description = service.prepared.service;
    const auto start = [&]() -> Result<void> {
        auto request = service.prepared.launch;
        request.report_fd = report_fd_in_child;
        const bool has_limits = description.memory_limit_bytes || description.pids_limit;
        if (options_.cgroups) {
            HR_TRY(service.cgroup,
                   options_.cgroups->prepare(
                       service.name, {description.memory_limit_bytes, description.pids_limit}));
            request.cgroup = service.cgroup;
        } else if (has_limits) {
            return fail(ErrorCode::unsupported, "Its limits cannot be set: there are no cgroups");
        }
        HR_TRY(auto output, make_pipe());
        HR_TRY(auto report_pipe, make_pipe());
        ProcessSpec spec;
        spec.pass_fds = {{report_fd_in_child, report_pipe.writer.get()}};
        if (request.module) {
            if (!service.counters)
                HR_CHECK(make_counters(service));
            request.module->worker.counters_fd = counters_fd_in_child;
            spec.pass_fds[counters_fd_in_child] = service.counters->fd();
        }
        UniqueFd workers_end;
        if (service.is_function()) {
            HR_TRY(auto channel, make_channel());
            service.channel = std::move(channel.reader);
            workers_end = std::move(channel.writer);
            request.module->worker.channel_fd = channel_fd_in_child;
            spec.pass_fds[channel_fd_in_child] = workers_end.get();
        }
        spec.argv = {options_.agent_program, "launch", encode_launch_request(request)};
        spec.environment = service.prepared.environment;
        spec.stdout_fd = output.writer.get();
        spec.stderr_fd = output.writer.get();
        HR_TRY(service.child, launcher_.launch(spec));
        service.state = State::starting;
        service.started_at = Clock::now();
        service.report_text.clear();
        service.report_reader = std::move(report_pipe.reader);
        logs_.attach(loop_, service.name, std::move(output.reader));
        HR_CHECK(loop_.watch(service.child.pidfd.get(), EPOLLIN,
                             [this, &service](std::uint32_t) { on_exit(service); }));
        return loop_.watch(service.report_reader.get(), EPOLLIN,
                           [this, &service](std::uint32_t) { read_report(service); });
    };
    if (auto started = start(); !started) {
        if (service.is_alive()) {
            kill(service);
            loop_.unwatch(service.child.pidfd.get());
            static_cast<void>(reap(service.child));
            service.child = {};
        }
        fail_service(service, started.error().describe());
    }
}

Result<void> ServiceSupervisor::make_counters(Service& service) {
    using wasm::worker::Counters;
    HR_TRY(auto counters, Counters::create(service.prepared.service.module->world));
    service.counters = std::make_shared<const Counters>(std::move(counters));
    if (callbacks_.on_counters)
        callbacks_.on_counters(service.name, service.counters);
    return {};
}

void ServiceSupervisor::read_report(Service& service) {
    std::array<char, 1024> buffer{};
    const ssize_t count = ::read(service.report_reader.get(), buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR)
        return;
    if (count > 0 && service.report_text.size() < max_report_bytes) {
        service.report_text.append(buffer.data(), static_cast<std::size_t>(count));
        return;
    }
    loop_.unwatch(service.report_reader.get());
    service.report_reader.reset();
    const auto launched = parse_launch_report(service.report_text);
    service.program_sha256 = launched.program_sha256;
    service.certificate_sha256 = launched.certificate_sha256;
    if (!launched.error.empty() || launched.program_sha256.empty())
        return; // its exit follows
    service.has_run = true;
    service.state = State::running;
    service.was_healthy = false;
    service.failed_checks = 0;
    logs_.say(fmt::format("Service {} runs, pid {}", service.name, service.child.pid));
    if (service.is_function() && callbacks_.on_function_start)
        callbacks_.on_function_start(service.prepared.service.name, service.name,
                                     std::move(service.channel));
    schedule_check(service);
    advance();
}

void ServiceSupervisor::on_exit(Service& service) {
    // What the program did so fast that its end came first.
    while (service.report_reader)
        read_report(service);
    loop_.unwatch(service.child.pidfd.get());
    loop_.cancel(service.stop_timer);
    loop_.cancel(service.check_timer);
    drop_check(service);
    kill(service); // what it left behind; before the reaping, which frees its group's number
    service.channel.reset();
    if (service.counters)
        service.counters->count_lost();
    if (service.is_function() && callbacks_.on_function_end)
        callbacks_.on_function_end(service.name);
    const auto status = reap(service.child);
    service.child = {};
    if (!status) {
        fail_service(service, status.error().describe());
        advance();
        return;
    }
    service.exit_code = status->exited ? status->code : 128 + status->signal;
    const auto launched = parse_launch_report(service.report_text);
    if (!launched.error.empty()) {
        fail_service(service, launched.error);
    } else {
        logs_.say(fmt::format("Service {} ended with {}", service.name, status->describe()));
        decide_after_exit(service);
    }
    if (stopping_) {
        report();
        stop_next();
    } else {
        advance();
    }
}

void ServiceSupervisor::decide_after_exit(Service& service) {
    const auto& description = service.prepared.service;
    const bool by_policy =
        description.restart == RestartPolicy::always ||
        description.restart == RestartPolicy::unless_stopped ||
        (description.restart == RestartPolicy::on_failure && service.exit_code != 0 &&
         (description.max_restarts == 0 || service.restarts < description.max_restarts));
    if (stopping_ || !by_policy) {
        service.state = State::exited;
        return;
    }
    const auto delay = service.delay.after(
        std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - service.started_at));
    service.state = State::waiting;
    service.restart_pending = true;
    service.restart_timer = loop_.call_after(delay, [this, &service] {
        service.restart_pending = false;
        ++service.restarts;
        launch(service);
        advance();
    });
    logs_.say(fmt::format("Service {} is started again in {} ms", service.name, delay.count()));
}

void ServiceSupervisor::fail_service(Service& service, const std::string& why) {
    service.state = State::failed;
    service.restart_pending = false;
    logs_.say(fmt::format("Service {} failed: {}", service.name, why));
    if (!ready_reported_ && !std::exchange(failure_reported_, true) && !stopping_)
        callbacks_.on_start_failure(fmt::format("Service {} failed: {}", service.name, why));
}

void ServiceSupervisor::schedule_check(Service& service) {
    const auto& check = service.prepared.service.health_check;
    if (!check)
        return;
    // Until the first success often, so that nobody waits a whole interval for a service that is
    // there at once.
    constexpr std::chrono::milliseconds first_interval{500};
    const auto delay =
        service.was_healthy ? check->interval : std::min(check->interval, first_interval);
    service.check_timer = loop_.call_after(delay, [this, &service] { run_check(service); });
}

void ServiceSupervisor::run_check(Service& service) {
    const auto& check = *service.prepared.service.health_check;
    auto request = service.prepared.launch;
    request.module.reset(); // a check is a program of the image
    if (!service.prepared.check_has_mounts)
        request.mounts.clear();
    request.command = check.command;
    request.cgroup = service.cgroup;
    ProcessSpec spec;
    spec.argv = {options_.agent_program, "launch", encode_launch_request(request)};
    spec.environment = service.prepared.environment;
    auto child = launcher_.launch(spec);
    if (!child) {
        finish_check(service, false, child.error().describe());
        return;
    }
    service.check = std::make_unique<Check>();
    service.check->child = std::move(*child);
    service.check->timeout = loop_.call_after(check.timeout, [&service] {
        service.check->timed_out = true;
        ::kill(-service.check->child.pid, SIGKILL); // its end calls back
    });
    const auto ended = [this, &service](std::uint32_t) {
        const auto status = reap(service.check->child);
        const bool timed_out = service.check->timed_out;
        service.check->child.pid = -1; // reaped
        drop_check(service);
        finish_check(service, !timed_out && status && status->exited && status->code == 0,
                     timed_out ? "no answer in time"
                     : status  ? status->describe()
                               : status.error().describe());
    };
    if (auto watched = loop_.watch(service.check->child.pidfd.get(), EPOLLIN, ended); !watched) {
        drop_check(service);
        finish_check(service, false, watched.error().describe());
    }
}

void ServiceSupervisor::drop_check(Service& service) {
    if (!service.check)
        return;
    loop_.cancel(service.check->timeout);
    loop_.unwatch(service.check->child.pidfd.get());
    if (service.check->child.pid > 0) {
        ::kill(-service.check->child.pid, SIGKILL);
        static_cast<void>(reap(service.check->child));
    }
    service.check.reset();
}

void ServiceSupervisor::finish_check(Service& service, bool passed, const std::string& outcome) {
    const auto& check = *service.prepared.service.health_check;
    const auto before = service.state;
    if (passed) {
        service.failed_checks = 0;
        service.was_healthy = true;
        service.state = State::healthy;
    } else {
        ++service.failed_checks;
        // Before the first success the time counts, not the number: checks are frequent then.
        const bool too_late =
            Clock::now() - service.started_at > check.start_period + check.interval * check.retries;
        if (service.was_healthy ? service.failed_checks >= check.retries : too_late)
            service.state = State::unhealthy;
    }
    schedule_check(service);
    if (service.state == before)
        return;
    const auto text = passed
                          ? fmt::format("Service {} is healthy", service.name)
                          : fmt::format("Service {} is unhealthy: its health check ended with {}",
                                        service.name, outcome);
    logs_.say(text);
    if (!passed && !ready_reported_ && !std::exchange(failure_reported_, true) && !stopping_)
        callbacks_.on_start_failure(text);
    advance();
}

void ServiceSupervisor::kill(Service& service) noexcept {
    if (service.is_alive())
        ::kill(-service.child.pid, SIGKILL);
    // The group is what it left; the cgroup also knows those that left the group.
    if (!service.cgroup.empty())
        static_cast<void>(Cgroups::kill_all(service.cgroup));
}

void ServiceSupervisor::stop(std::function<void()> done) {
    if (std::exchange(stopping_, true)) {
        for (const auto& service : services_)
            if (service->is_alive())
                kill(*service);
        return;
    }
    stopped_ = std::move(done);
    for (const auto& service : services_) {
        loop_.cancel(service->restart_timer);
        loop_.cancel(service->check_timer);
        drop_check(*service);
        if (std::exchange(service->restart_pending, false))
            service->state = State::exited;
    }
    stop_next();
}

void ServiceSupervisor::stop_next() {
    const auto is_needed = [this](const Service& service) {
        return std::any_of(services_.begin(), services_.end(), [&](const auto& other) {
            const auto& needs = other->prepared.service.depends_on;
            return other->is_alive() &&
                   std::any_of(needs.begin(), needs.end(), [&](const auto& dependency) {
                       return dependency.service == service.prepared.service.name;
                   });
        });
    };
    bool any_alive = false;
    for (const auto& service : services_) {
        any_alive = any_alive || service->is_alive();
        if (!service->is_alive() || service->told_to_stop || is_needed(*service))
            continue;
        service->told_to_stop = true;
        logs_.say(fmt::format("Stopping service {}", service->name));
        ::kill(-service->child.pid, SIGTERM);
        auto* stopped = service.get();
        service->stop_timer =
            loop_.call_after(service->prepared.service.stop_grace_period, [this, stopped] {
                logs_.say(fmt::format("Service {} did not end in its {} ms: killing it",
                                      stopped->name,
                                      stopped->prepared.service.stop_grace_period.count()));
                kill(*stopped);
            });
    }
    if (!any_alive && stopped_)
        std::exchange(stopped_, nullptr)();
}

void ServiceSupervisor::report() {
    callbacks_.on_change(statuses());
}

void ServiceSupervisor::look_for_the_end() {
    const auto is_there = [](const auto& service) {
        return service->prepared.service.health_check
                   ? service->state == State::healthy || service->ended_well()
                   : service->state == State::running || service->ended_well();
    };
    for (const auto& service : services_) {
        // One that ended badly and stays down can never be there.
        if (service->state == State::exited && !service->ended_well() && !ready_reported_ &&
            !stopping_ && !std::exchange(failure_reported_, true))
            callbacks_.on_start_failure(fmt::format("Service {} ended with exit code {}",
                                                    service->name, *service->exit_code));
    }
    if (!ready_reported_ && !failure_reported_ && !stopping_ &&
        std::all_of(services_.begin(), services_.end(), is_there)) {
        ready_reported_ = true;
        callbacks_.on_ready();
    }
    if (!end_reported_ && !stopping_ && !services_.empty() &&
        std::all_of(services_.begin(), services_.end(),
                    [](const auto& service) { return service->has_ended(); })) {
        end_reported_ = true;
        callbacks_.on_all_ended();
    }
}

std::vector<protocol::ServiceStatus> ServiceSupervisor::statuses() const {
    std::vector<protocol::ServiceStatus> result;
    for (const auto& service : services_) {
        protocol::ServiceStatus status;
        status.name = service->name;
        status.state = to_string(service->state);
        status.pid = service->is_alive() ? service->child.pid : 0;
        status.exit_code = service->is_alive() ? std::nullopt : service->exit_code;
        status.restarts = service->restarts;
        status.program_sha256 = service->program_sha256;
        status.certificate_sha256 = service->certificate_sha256;
        if (service->is_replica())
            status.replica_of = service->prepared.service.name;
        result.push_back(std::move(status));
    }
    return result;
}

} // namespace host_runner::agent

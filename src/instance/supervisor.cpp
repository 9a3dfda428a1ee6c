// SPDX-License-Identifier: Apache-2.0
#include "host_runner/instance/supervisor.hpp"

#include <algorithm>
#include <csignal>
#include <optional>
#include <set>
#include <utility>

#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "guest_caller.hpp"
#include "host_runner/base/files.hpp"
#include "host_runner/base/log.hpp"
#include "host_runner/base/units.hpp"
#include "host_runner/host/affinity.hpp"
#include "host_runner/instance/delivery.hpp"
#include "host_runner/instance/stop_ladder.hpp"
#include "host_runner/qemu/qmp_client.hpp"

namespace host_runner::instance {

namespace {

using std::chrono::milliseconds;
using Clock = EventLoop::Clock;
using namespace std::chrono_literals;

constexpr auto qmp_command_timeout = 10s;
/// Free space at which a VM that was paused by a full disk goes on.
constexpr std::uint64_t resume_free_bytes = 64 * mib;
constexpr std::size_t stderr_bytes = 64 * kib;
/// A port may be lost to somebody else several times; three times in a row is no accident.
constexpr unsigned max_port_tries = 3;

milliseconds since(Clock::time_point start) {
    return std::chrono::duration_cast<milliseconds>(Clock::now() - start);
}

/// How long until the next try to reach QMP: the socket is there some 20 ms after exec, but
/// minutes after it where hundreds of GiB of hugepages are filled first.
milliseconds qmp_retry_delay(milliseconds waited) {
    if (waited < 1s)
        return 5ms;
    return waited < 10s ? 50ms : 500ms;
}

std::string json_member(const std::string& json, const char* name) {
    const auto object = nlohmann::json::parse(json, nullptr, false);
    if (!object.is_object())
        return {};
    const auto member = object.find(name);
    return member != object.end() && member->is_string() ? member->get<std::string>()
                                                         : std::string();
}

/// False when the event does not say so.
bool json_flag(const std::string& json, const char* name) {
    const auto object = nlohmann::json::parse(json, nullptr, false);
    const auto member = object.is_object() ? object.find(name) : object.end();
    return object.is_object() && member != object.end() && member->is_boolean() &&
           member->get<bool>();
}

std::uint64_t free_bytes(const std::string& path) {
    struct statvfs status {};
    if (::statvfs(path.c_str(), &status) != 0)
        return 0;
    return static_cast<std::uint64_t>(status.f_bavail) * status.f_frsize;
}

} // namespace

struct Supervisor::Impl {
    enum class Phase { preparing, starting, booting, ready, stopping, restarting, ended };

    Impl(EventLoop& event_loop, ProcessLauncher& process_launcher, SupervisorConfig the_config,
         SupervisorHooks the_hooks)
        : loop(event_loop), launcher(process_launcher), config(std::move(the_config)),
          hooks(std::move(the_hooks)), back_off(config.restart, config.times.restart) {
        if (config.guest_api)
            guest.emplace(loop, config.guest_api);
    }

    EventLoop& loop;
    ProcessLauncher& launcher;
    SupervisorConfig config;
    SupervisorHooks hooks;
    RestartBackOff back_off;
    std::optional<GuestCaller> guest;

    Phase phase = Phase::preparing;
    std::optional<ChildProcess> child;
    Clock::time_point launched;
    std::uint64_t stderr_offset = 0;
    std::optional<ExitStatus> exit_status; ///< Reaped; waiting for the last QMP events.
    std::unique_ptr<qemu::QmpClient> qmp;
    unsigned qmp_number = 0; ///< Of the connection; a dropped one may still call once.
    EndFacts facts;
    unsigned port_tries = 0;
    std::uint32_t restarts = 0;

    bool guest_seen = false; ///< A host API event came in this boot.
    milliseconds ready_after{-1};
    std::string last_progress;
    std::string qmp_status;
    std::string guest_info;
    std::string services;
    bool asking_services = false;
    std::vector<std::function<void(const Result<std::string>&)>> services_askers;
    bool warned_log = false;
    bool paused_by_full_disk = false;
    bool no_restart = false; ///< A stop was asked for after QEMU had ended by itself.

    std::vector<LadderStep> ladder;
    std::size_t ladder_index = 0;
    Clock::time_point step_began;
    std::vector<std::function<void(const StopStep&)>> stop_listeners;

    /// Timers that are armed; each removes itself when it fires.
    std::set<EventLoop::TimerId> timers;
    EventLoop::TimerId step_timer = 0;
    EventLoop::TimerId last_events_timer = 0;
    EventLoop::TimerId ready_timer = 0;

    // --- small tools ---------------------------------------------------------------------------

    void emit(RunEvent::Kind kind, std::string text, milliseconds limit = 0ms) {
        hooks.on_event({kind, std::move(text), since(config.began), limit});
    }

    EventLoop::TimerId after(milliseconds delay, std::function<void()> action) {
        // The id is known only after call_after() returns, hence the shared cell.
        auto id = std::make_shared<EventLoop::TimerId>(0);
        *id = loop.call_after(delay, [this, id, action = std::move(action)] {
            timers.erase(*id);
            action();
        });
        timers.insert(*id);
        return *id;
    }

    void cancel(EventLoop::TimerId& id) {
        loop.cancel(id);
        timers.erase(id);
        id = 0;
    }

    [[nodiscard]] bool qemu_runs() const {
        return child && !exit_status;
    }

    void send_signal(int signal) {
        if (qemu_runs())
            ::syscall(SYS_pidfd_send_signal, child->pidfd.get(), signal, nullptr, 0);
    }

    // --- start ---------------------------------------------------------------------------------

    Result<void> launch(LaunchCause cause) {
        // One of the last run would refuse the connection, or worse, belong to somebody else.
        HR_CHECK(remove_file(config.paths.qmp_socket()));
        HR_TRY(auto next, hooks.next_launch(cause));
        check_logs();
        const auto now = unix_time_ms();
        const auto marker = boot_marker(now, config.id);
        HR_CHECK(append_marker(config.paths.serial_log(), marker));
        HR_CHECK(write_all(config.logs.stdout_fd.get(), marker));
        HR_CHECK(write_all(config.logs.stderr_fd.get(), marker));

        ProcessSpec spec;
        spec.argv = std::move(next.argv);
        spec.user = std::move(next.user);
        spec.unlimited_locked_memory = next.unlimited_locked_memory;
        spec.cgroup_fd = next.cgroup_fd;
        spec.stdout_fd = config.logs.stdout_fd.get();
        spec.stderr_fd = config.logs.stderr_fd.get();
        for (const auto& [number, fd] : next.pass_fds)
            spec.pass_fds[number] = fd.get();
        stderr_offset = file_size(config.logs.stderr_path);
        facts = EndFacts{};
        cancel(ready_timer);
        end_asking_services(fail(ErrorCode::unavailable, "The VM was started anew"));
        paused_by_full_disk = false;
        guest_seen = false;
        guest_info.clear();
        services.clear();
        qmp_status.clear();
        HR_TRY(child, launch_in_place(spec));
        launched = Clock::now();
        phase = Phase::starting;
        if (auto watched = loop.watch(child->pidfd.get(), EPOLLIN,
                                      [this](std::uint32_t) { on_process_end(); });
            !watched) {
            kill_and_reap();
            return watched;
        }
        connect_qmp();
        return {};
    }

    /// Its first threads and pages are where they shall be already.
    Result<ChildProcess> launch_in_place(const ProcessSpec& spec) {
        if (!config.pinning)
            return launcher.launch(spec);
        HR_TRY(const auto placed,
               host::ScopedPlacement::enter(config.pinning->others, config.pinning->memory_nodes));
        return launcher.launch(spec);
    }

    /// Each vCPU to the processors of its NUMA node; all other threads have those of all nodes from
    /// the start.
    void pin_vcpus_and_say_started() {
        const auto say_started = [this] {
            emit(RunEvent::Kind::started, std::to_string(child->pid));
        };
        if (!config.pinning)
            return say_started();
        qmp->execute("query-cpus-fast", "", qmp_command_timeout,
                     [this, say_started](const Result<std::string>& cpus) {
                         if (const auto pinned = cpus.and_then(
                                 [this](const std::string& json) { return pin_each(json); });
                             !pinned)
                             emit(RunEvent::Kind::warning,
                                  fmt::format("The VM's processors are not pinned: {}",
                                              pinned.error().describe()));
                         say_started();
                     });
    }

    /// @param cpus_json of query-cpus-fast
    Result<void> pin_each(const std::string& cpus_json) {
        HR_TRY(const auto threads, qemu::vcpu_threads(cpus_json));
        for (const auto& [index, thread] : threads) {
            if (index >= config.pinning->vcpus.size())
                continue;
            // QEMU may be its guest's by now: it shall not have us pin what is not its own.
            if (!path_exists(fmt::format("/proc/{}/task/{}", child->pid, thread)))
                return fail(ErrorCode::corrupt_data,
                            fmt::format("QEMU names a thread {} that is not its own", thread));
            HR_CHECK(host::set_thread_cpus(thread, config.pinning->vcpus[index]));
        }
        return {};
    }

    void connect_qmp() {
        if (!qemu_runs() || qmp)
            return;
        const auto number = qmp_number;
        auto client = qemu::QmpClient::connect(
            loop, config.paths.qmp_socket(),
            [this, number](const qemu::QmpEvent& event) {
                if (number == qmp_number)
                    on_qmp_event(event);
            },
            [this, number] {
                if (number == qmp_number)
                    on_qmp_closed();
            });
        if (!client) {
            after(qmp_retry_delay(since(launched)), [this] { connect_qmp(); });
            return;
        }
        qmp = std::move(*client);
        ask_qmp_status();
    }

    void ask_qmp_status() {
        if (!qmp)
            return;
        qmp->execute("query-status", "", qmp_command_timeout, [this](Result<std::string> reply) {
            if (!reply)
                return;
            qmp_status = json_member(*reply, "status");
            if (facts.qmp_answered)
                return;
            facts.qmp_answered = true;
            if (phase == Phase::starting)
                phase = Phase::booting;
            pin_vcpus_and_say_started();
        });
    }

    // --- what QEMU says ------------------------------------------------------------------------

    void on_qmp_event(const qemu::QmpEvent& event) {
        log::debug("QMP event {} {}", event.name, printable(event.data_json));
        if (event.name == "SHUTDOWN") {
            facts.shutdown = qemu::shutdown_reason(event.data_json);
        } else if (event.name == "GUEST_PANICKED") {
            facts.panicked = true;
            facts.panic_message = qemu::panic_message(event.data_json);
        } else if (event.name == "BLOCK_IO_ERROR") {
            on_block_error(event.data_json);
        } else if (event.name == "STOP" || event.name == "RESUME") {
            ask_qmp_status();
        }
    }

    /// QEMU pauses the VM when a write of the guest finds the host's disk full (werror=enospc, its
    /// default); it goes on once there is room again.
    void on_block_error(const std::string& data_json) {
        if (!json_flag(data_json, "nospace")) {
            emit(RunEvent::Kind::warning, fmt::format("QEMU could not access a disk of the VM: {}",
                                                      printable(json_member(data_json, "reason"))));
            return;
        }
        if (std::exchange(paused_by_full_disk, true))
            return; // one event for each request that was under way
        emit(RunEvent::Kind::warning,
             fmt::format("The VM is paused: the disk that holds {} is full; it goes on by itself "
                         "once {} are free",
                         config.paths.directory, format_size_rounded(resume_free_bytes)));
        after(config.times.resume_try, [this] { try_to_resume(); });
    }

    void try_to_resume() {
        if (!qmp || phase == Phase::stopping || !paused_by_full_disk)
            return;
        if (free_bytes(config.paths.directory) < resume_free_bytes) {
            after(config.times.resume_try, [this] { try_to_resume(); });
            return;
        }
        paused_by_full_disk = false;
        qmp->execute("cont", "", qmp_command_timeout, [this](Result<std::string> reply) {
            if (reply)
                emit(RunEvent::Kind::notice, "There is room on the disk again: the VM goes on");
            else
                emit(RunEvent::Kind::warning,
                     fmt::format("The VM could not be resumed: {}", reply.error().describe()));
        });
    }

    /// Not at once: the client may be the one that is calling us.
    void drop_qmp() {
        ++qmp_number;
        loop.post([client = std::shared_ptr(std::move(qmp))] {});
    }

    void on_qmp_closed() {
        drop_qmp();
        if (exit_status)
            finish_process_soon();
        else
            after(100ms, [this] { connect_qmp(); });
    }

    // --- what the guest says -------------------------------------------------------------------

    void on_guest_event(const protocol::Event& event) {
        if (!child)
            return;
        guest_seen = true;
        const auto text = printable(event.payload);
        if (event.name == "boot.progress") {
            last_progress = text;
            if (event.payload == "done")
                on_guest_done();
            else
                emit(RunEvent::Kind::progress, text);
        } else if (event.name == "boot.error") {
            last_progress = text;
            facts.boot_error = text;
            emit(RunEvent::Kind::boot_error, text);
            refresh_services(); // there is no `ready` to fetch them for, and one may have failed
        } else if (event.name == "instance.info") {
            keep_instance_info(event.payload);
        } else if (event.name == "shutdown.progress") {
            emit(RunEvent::Kind::progress, text);
        } else if (event.name == "events.dropped") {
            emit(RunEvent::Kind::warning,
                 fmt::format("The guest sent too many messages; dropped: {}", text));
        } else {
            log::debug("Unknown guest event {}: {}", printable(event.name, 64), text);
        }
    }

    /// Whoever hears `ready` may ask at once what the guest is, so that is fetched first.
    void on_guest_done() {
        facts.was_ready = true;
        if (phase == Phase::ready || phase == Phase::stopping || ready_timer != 0)
            return;
        if (!guest)
            return announce_ready();
        ready_timer = after(config.times.ready_call, [this] { announce_ready(); });
        guest->call("Info", config.times.guest_call, [this](Result<std::string> body) {
            if (body && nlohmann::json::accept(*body))
                guest_info = std::move(*body);
            else
                log::warn("The guest does not say what it is: {}",
                          body ? "its answer is no JSON" : body.error().describe());
            if (!config.has_services)
                announce_ready();
        });
        refresh_services();
    }

    void announce_ready() {
        cancel(ready_timer);
        if (phase == Phase::ready || phase == Phase::stopping || !qemu_runs())
            return;
        phase = Phase::ready;
        ready_after = since(config.began);
        emit(RunEvent::Kind::ready, "");
    }

    void refresh_services() {
        if (!guest || !config.has_services || asking_services)
            return;
        asking_services = true;
        guest->call("Services", config.times.guest_call, [this](Result<std::string> body) {
            if (body && !nlohmann::json::accept(*body))
                body = fail(ErrorCode::corrupt_data, "The guest's answer is no JSON");
            if (body)
                services = *body;
            end_asking_services(body);
            if (facts.was_ready)
                announce_ready();
        });
    }

    void end_asking_services(const Result<std::string>& answer) {
        asking_services = false;
        for (const auto& asker : std::exchange(services_askers, {}))
            asker(answer);
    }

    void keep_instance_info(const std::string& payload) {
        if (const auto kept = store_instance_info(config.paths, payload); !kept)
            emit(RunEvent::Kind::warning,
                 fmt::format("The guest's identity is not kept, its disk may be lost at the next "
                             "start: {}",
                             kept.error().describe()));
    }

    // --- the end -------------------------------------------------------------------------------

    void on_process_end() {
        loop.unwatch(child->pidfd.get());
        auto status = reap(*child);
        if (!status)
            log::error("{}", status.error().describe());
        exit_status = status ? *status : ExitStatus{true, 1, 0};
        if (!qmp)
            return finish_process_soon();
        // Its last events may still lie in the QMP socket.
        last_events_timer = after(config.times.last_events, [this] {
            drop_qmp();
            finish_process_soon();
        });
    }

    /// After what the host API's thread has already posted, such as the boot.error of a guest that
    /// then reset itself.
    void finish_process_soon() {
        cancel(last_events_timer);
        after(0ms, [this] { finish_process(); });
    }

    void finish_process() {
        if (!exit_status)
            return; // both ways to get here were taken
        const auto uptime = since(launched);
        facts.exit = *exit_status;
        facts.stderr_text = read_tail(config.logs.stderr_path, stderr_offset, stderr_bytes);
        facts.time_ms = unix_time_ms();
        facts.stop_requested = phase == Phase::stopping;
        if (facts.stop_requested)
            facts.stop_step = to_string(ladder.at(ladder_index).kind);
        child.reset();
        exit_status.reset();
        const End end = decide_end(facts);

        if (facts.stop_requested || no_restart)
            return finish(end);
        if (is_port_conflict(facts) && ++port_tries < max_port_tries) {
            auto launched_again = launch(LaunchCause::port_lost);
            if (launched_again)
                return;
            log::debug("No other port: {}", launched_again.error().describe());
        }
        // A later start may fail because a device is not yet given back.
        const bool failed =
            is_failure(end.reason) || (end.reason == EndReason::qemu_start_failed && restarts > 0);
        const auto delay = failed ? back_off.next(uptime) : std::nullopt;
        if (!delay)
            return finish(end);
        phase = Phase::restarting;
        const auto words = printable(end.detail);
        emit(RunEvent::Kind::restart,
             fmt::format("{}{}{}: starting again in {} ({} of {})", to_string(end.reason),
                         words.empty() ? "" : ": ", words, format_duration(*delay),
                         back_off.count(), config.restart.max_restarts));
        after(*delay, [this] {
            ++restarts;
            if (auto again = launch(LaunchCause::restart); !again)
                finish({unix_time_ms(), EndReason::start_failed, exit_code_for(again.error().code),
                        again.error().describe()});
        });
    }

    void finish(const End& end) {
        phase = Phase::ended;
        while (!timers.empty()) {
            loop.cancel(*timers.begin());
            timers.erase(timers.begin());
        }
        auto listeners = std::move(stop_listeners);
        stop_listeners.clear();
        for (const auto& listener : listeners)
            listener({std::string(to_string(end.reason)),
                      static_cast<std::int64_t>(since(step_began).count()), 0, true});
        emit(RunEvent::Kind::ended,
             end.detail.empty()
                 ? std::string(to_string(end.reason))
                 : fmt::format("{}: {}", to_string(end.reason), printable(end.detail)));
        hooks.on_end(end);
    }

    void kill_and_reap() {
        send_signal(SIGKILL);
        loop.unwatch(child->pidfd.get());
        static_cast<void>(reap(*child));
        child.reset();
    }

    // --- stop ----------------------------------------------------------------------------------

    [[nodiscard]] StopStep current_step() const {
        const auto& step = ladder.at(ladder_index);
        return {std::string(to_string(step.kind)),
                static_cast<std::int64_t>(since(step_began).count()),
                static_cast<std::int64_t>(step.limit.count()), false};
    }

    void begin_stop(const StopRequest& request) {
        if (exit_status) {
            no_restart = true; // finish_process() is about to say how it ended
            return;
        }
        if (!child) // between two starts
            return finish({unix_time_ms(), EndReason::stop_requested, ExitCode::success,
                           "while no QEMU was running"});
        StopLadderInput input;
        input.memory_bytes = config.memory_bytes;
        input.guest_is_up = guest_seen || !config.reports_progress;
        input.has_guest_api = guest.has_value();
        input.total = request.timeout > 0ms ? request.timeout : config.stop_timeout;
        ladder = plan_stop_ladder(input);
        phase = Phase::stopping;
        if (guest) {
            guest->drop_waiting();
            end_asking_services(fail(ErrorCode::unavailable, "The VM is being stopped"));
        }
        begin_step(request.force ? ladder.size() - 1 : 0);
    }

    void begin_step(std::size_t index) {
        cancel(step_timer);
        ladder_index = index;
        step_began = Clock::now();
        const auto& step = ladder.at(index);
        emit(RunEvent::Kind::stop_step, std::string(to_string(step.kind)), step.limit);
        for (const auto& listener : stop_listeners)
            listener(current_step());
        const bool last = index + 1 == ladder.size();
        step_timer = after(step.limit, [this, index, last] {
            if (last)
                emit(RunEvent::Kind::warning,
                     "The kernel has not yet ended QEMU: it is still giving back the VM's memory "
                     "or devices");
            else
                begin_step(index + 1);
        });
        take_step(step.kind, index);
    }

    /// What did not even get through need not run its time out.
    void step_failed(std::size_t index, const Error& error) {
        if (phase != Phase::stopping || ladder_index != index || !qemu_runs())
            return;
        log::debug("{}: {}", to_string(ladder.at(index).kind), error.describe());
        begin_step(index + 1);
    }

    void take_step(StopStepKind kind, std::size_t index) {
        switch (kind) {
        case StopStepKind::guest_shutdown:
            guest->call("Shutdown", std::min(config.times.guest_call, ladder.at(index).limit),
                        [this, index](Result<std::string> body) {
                            if (!body)
                                step_failed(index, body.error());
                        });
            return;
        case StopStepKind::system_powerdown:
            return take_qmp_step("system_powerdown", index);
        case StopStepKind::qmp_quit:
            return take_qmp_step("quit", index);
        case StopStepKind::terminate:
            return send_signal(SIGTERM);
        case StopStepKind::kill:
            facts.kill_sent = true;
            return send_signal(SIGKILL);
        }
    }

    void take_qmp_step(const char* command, std::size_t index) {
        if (!qmp) {
            // Posted, so that steps do not begin within one another.
            after(0ms, [this, index] {
                step_failed(index, {ErrorCode::unavailable, "QMP is not connected", {}, 0});
            });
            return;
        }
        qmp->execute(command, "", ladder.at(index).limit, [this, index](Result<std::string> reply) {
            // A closed connection is how `quit` ends; then the process does, too.
            if (!reply && reply.error().code != ErrorCode::unavailable)
                step_failed(index, reply.error());
        });
    }

    // --- logs ----------------------------------------------------------------------------------

    void check_logs() {
        for (const auto& path :
             {config.paths.serial_log(), config.logs.stdout_path, config.logs.stderr_path}) {
            auto rotated = rotate_if_large(path);
            if (rotated && *rotated && path == config.logs.stderr_path)
                stderr_offset = 0;
            if (!rotated && !warned_log) {
                warned_log = true;
                emit(RunEvent::Kind::warning, rotated.error().describe());
            }
        }
    }

    void watch_logs() {
        after(config.times.log_check, [this] {
            check_logs();
            watch_logs();
        });
    }
};

Supervisor::Supervisor(EventLoop& loop, ProcessLauncher& launcher, SupervisorConfig config,
                       SupervisorHooks hooks)
    : impl_(std::make_unique<Impl>(loop, launcher, std::move(config), std::move(hooks))) {}

Supervisor::~Supervisor() {
    for (const auto id : impl_->timers)
        impl_->loop.cancel(id);
    if (impl_->qemu_runs())
        impl_->kill_and_reap();
}

Result<void> Supervisor::start() {
    HR_CHECK(impl_->launch(LaunchCause::first));
    impl_->watch_logs();
    return {};
}

void Supervisor::on_guest_event(const protocol::Event& event) {
    impl_->on_guest_event(event);
}

void Supervisor::request_stop(const StopRequest& request,
                              std::function<void(const StopStep&)> on_step) {
    auto& vm = *impl_;
    if (vm.phase == Impl::Phase::ended) {
        if (on_step)
            on_step({"already ended", 0, 0, true});
        return;
    }
    if (vm.phase != Impl::Phase::stopping) {
        if (on_step)
            vm.stop_listeners.push_back(std::move(on_step));
        return vm.begin_stop(request);
    }
    if (on_step) {
        on_step(vm.current_step());
        vm.stop_listeners.push_back(std::move(on_step));
    }
    const auto go_to_kill = [&vm] {
        if (vm.qemu_runs() && vm.ladder_index + 1 < vm.ladder.size())
            vm.begin_step(vm.ladder.size() - 1);
    };
    if (request.force)
        go_to_kill();
    else if (request.timeout > 0ms)
        vm.after(request.timeout, go_to_kill);
}

void Supervisor::hurry_stop() {
    auto& vm = *impl_;
    if (vm.phase == Impl::Phase::ended)
        return;
    if (vm.phase != Impl::Phase::stopping)
        return vm.begin_stop({});
    if (vm.qemu_runs() && vm.ladder_index + 1 < vm.ladder.size())
        vm.begin_step(vm.ladder_index + 1);
}

LiveStatus Supervisor::status() const {
    const auto& vm = *impl_;
    LiveStatus status;
    switch (vm.phase) {
    case Impl::Phase::preparing:
        status.phase = "preparing";
        break;
    case Impl::Phase::starting:
        status.phase = "starting";
        break;
    case Impl::Phase::booting:
        status.phase = "booting";
        break;
    case Impl::Phase::ready:
        status.phase = "ready";
        break;
    case Impl::Phase::stopping:
    case Impl::Phase::ended:
        status.phase = "stopping";
        break;
    case Impl::Phase::restarting:
        status.phase = "restarting";
        break;
    }
    status.runner_pid = ::getpid();
    if (vm.qemu_runs()) {
        status.qemu_pid = vm.child->pid;
        status.uptime_ms = since(vm.launched).count();
    }
    status.ready_after_ms = vm.ready_after.count();
    status.last_progress = vm.last_progress;
    status.qmp_status = vm.qmp_status;
    status.guest_info_json = vm.guest_info;
    status.services_json = vm.services;
    status.restarts = vm.restarts;
    return status;
}

void Supervisor::ask_services(std::function<void(const Result<std::string>& services_json)> done) {
    auto& vm = *impl_;
    const bool is_up = vm.phase == Impl::Phase::ready || !vm.facts.boot_error.empty();
    if (!vm.guest || !vm.config.has_services || !is_up) {
        done(fail(ErrorCode::unavailable, "The guest cannot be asked at the moment"));
        return;
    }
    vm.services_askers.push_back(std::move(done));
    vm.refresh_services();
}

} // namespace host_runner::instance

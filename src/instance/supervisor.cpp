// SPDX-License-Identifier: Apache-2.0
#include "host_runner/instance/supervisor.hpp"

#include <algorithm>
#include <optional>
#include <utility>

#include <sys/statvfs.h>
#include <unistd.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "guest_caller.hpp"
#include "host_runner/base/files.hpp"
#include "host_runner/base/log.hpp"
#include "host_runner/base/units.hpp"
#include "host_runner/instance/delivery.hpp"
#include "host_runner/instance/stop_ladder.hpp"
#include "qemu_process.hpp"
#include "timers.hpp"

namespace host_runner::instance {

namespace {

using std::chrono::milliseconds;
using Clock = EventLoop::Clock;
using namespace std::chrono_literals;

/// Free space at which a VM that was paused by a full disk goes on.
constexpr std::uint64_t resume_free_bytes = 64 * mib;
constexpr std::size_t stderr_bytes = 64 * kib;
/// A port may be lost to somebody else several times; three times in a row is no accident.
constexpr unsigned max_port_tries = 3;

milliseconds since(Clock::time_point start) {
    return std::chrono::duration_cast<milliseconds>(Clock::now() - start);
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
    std::unique_ptr<Machine> machine;
    Clock::time_point launched;
    std::uint64_t stderr_offset = 0;
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

    Timers timers{loop};
    EventLoop::TimerId step_timer = 0;
    EventLoop::TimerId ready_timer = 0;

    // --- small tools ---------------------------------------------------------------------------

    void emit(RunEvent::Kind kind, std::string text, milliseconds limit = 0ms) {
        hooks.on_event({kind, std::move(text), since(config.began), limit});
    }

    EventLoop::TimerId after(milliseconds delay, std::function<void()> action) {
        return timers.after(delay, std::move(action));
    }

    void cancel(EventLoop::TimerId& id) {
        timers.cancel(id);
    }

    [[nodiscard]] bool qemu_runs() const {
        return machine && machine->runs();
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

        stderr_offset = file_size(config.logs.stderr_path);
        facts = EndFacts{};
        cancel(ready_timer);
        end_asking_services(fail(ErrorCode::unavailable, "The VM was started anew"));
        paused_by_full_disk = false;
        guest_seen = false;
        guest_info.clear();
        services.clear();
        qmp_status.clear();
        HR_TRY(machine, start_machine(std::move(next)));
        launched = Clock::now();
        phase = Phase::starting;
        return {};
    }

    Result<std::unique_ptr<Machine>> start_machine(Launch next) {
        MachineHooks of_machine;
        of_machine.on_answer = [this] {
            facts.qmp_answered = true;
            if (phase == Phase::starting)
                phase = Phase::booting;
        };
        of_machine.on_started = [this] {
            emit(RunEvent::Kind::started, std::to_string(machine->pid()));
        };
        of_machine.on_status = [this](const std::string& status) {
            qmp_status = status;
        };
        of_machine.on_disk_error = [this](bool no_space, const std::string& reason) {
            on_disk_error(no_space, reason);
        };
        of_machine.on_warning = [this](const std::string& text) {
            emit(RunEvent::Kind::warning, text);
        };
        of_machine.on_end = [this](const MachineEnd& end) {
            on_machine_end(end);
        };
        if (config.starter != nullptr)
            return config.starter->start(loop, std::move(next), std::move(of_machine));
        const QemuProcessConfig process{config.paths.qmp_socket(), config.logs.stdout_fd.get(),
                                        config.logs.stderr_fd.get(), &config.pinning,
                                        config.times.last_events};
        return start_qemu_process(loop, launcher, process, std::move(next), std::move(of_machine));
    }

    // --- what QEMU says ------------------------------------------------------------------------

    /// QEMU pauses the VM when a write of the guest finds the host's disk full (werror=enospc, its
    /// default); it goes on once there is room again.
    void on_disk_error(bool no_space, const std::string& reason) {
        if (!no_space) {
            emit(RunEvent::Kind::warning,
                 fmt::format("QEMU could not access a disk of the VM: {}", printable(reason)));
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
        if (!machine || !machine->is_connected() || phase == Phase::stopping ||
            !paused_by_full_disk)
            return;
        if (free_bytes(config.paths.directory) < resume_free_bytes) {
            after(config.times.resume_try, [this] { try_to_resume(); });
            return;
        }
        paused_by_full_disk = false;
        machine->resume([this](const Result<void>& reply) {
            if (reply)
                emit(RunEvent::Kind::notice, "There is room on the disk again: the VM goes on");
            else
                emit(RunEvent::Kind::warning,
                     fmt::format("The VM could not be resumed: {}", reply.error().describe()));
        });
    }

    // --- what the guest says -------------------------------------------------------------------

    void on_guest_event(const protocol::Event& event) {
        if (!machine)
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

    void on_machine_end(const MachineEnd& seen) {
        const auto uptime = since(launched);
        facts.exit = seen.exit;
        facts.exit_words = seen.exit_words;
        facts.shutdown = seen.shutdown;
        facts.panicked = seen.panicked;
        facts.panic_message = seen.panic_message;
        facts.stderr_text =
            read_tail(config.logs.stderr_path, stderr_offset, stderr_bytes) + seen.error_text;
        facts.time_ms = unix_time_ms();
        facts.stop_requested = phase == Phase::stopping;
        if (facts.stop_requested)
            facts.stop_step = to_string(ladder.at(ladder_index).kind);
        machine.reset();
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
        timers.cancel_all();
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

    // --- stop ----------------------------------------------------------------------------------

    [[nodiscard]] StopStep current_step() const {
        const auto& step = ladder.at(ladder_index);
        return {std::string(to_string(step.kind)),
                static_cast<std::int64_t>(since(step_began).count()),
                static_cast<std::int64_t>(step.limit.count()), false};
    }

    void begin_stop(const StopRequest& request) {
        if (machine && !machine->runs()) {
            no_restart = true; // on_machine_end() is about to say how it ended
            return;
        }
        if (!machine) // between two starts
            return finish({unix_time_ms(), EndReason::stop_requested, ExitCode::success,
                           "while no QEMU was running"});
        StopLadderInput input;
        input.memory_bytes = config.memory_bytes;
        input.guest_is_up = guest_seen || !config.reports_progress;
        input.has_guest_api = guest.has_value();
        input.has_qmp = config.starter == nullptr;
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
        case StopStepKind::qmp_quit:
        case StopStepKind::terminate:
        case StopStepKind::kill:
            facts.kill_sent = facts.kill_sent || kind == StopStepKind::kill;
            return machine->take_step(
                kind, ladder.at(index).limit,
                [this, index](const Error& error) { step_failed(index, error); });
        }
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
    impl_->timers.cancel_all();
    impl_->machine.reset();
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
        status.qemu_pid = vm.machine->pid();
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

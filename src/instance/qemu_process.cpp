// SPDX-License-Identifier: Apache-2.0
#include "qemu_process.hpp"

#include <csignal>
#include <utility>

#include <sys/syscall.h>
#include <unistd.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "host_runner/base/files.hpp"
#include "host_runner/base/log.hpp"
#include "host_runner/host/affinity.hpp"
#include "host_runner/instance/logs.hpp"
#include "host_runner/qemu/qmp_client.hpp"
#include "timers.hpp"

namespace host_runner::instance {

namespace {

using std::chrono::milliseconds;
using Clock = EventLoop::Clock;
using namespace std::chrono_literals;

constexpr auto qmp_command_timeout = 10s;

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

class QemuProcess final : public Machine {
public:
    QemuProcess(EventLoop& loop, const QemuProcessConfig& config, MachineHooks hooks)
        : loop_(loop), config_(config), hooks_(std::move(hooks)), timers_(loop) {}
    ~QemuProcess() override {
        timers_.cancel_all();
        if (runs())
            kill_and_reap();
    }

    Result<void> launch(ProcessLauncher& launcher, const ProcessSpec& spec) {
        HR_TRY(child_, launch_in_place(launcher, spec));
        launched_ = Clock::now();
        if (auto watched = loop_.watch(child_->pidfd.get(), EPOLLIN,
                                       [this](std::uint32_t) { on_process_end(); });
            !watched) {
            kill_and_reap();
            return watched;
        }
        connect_qmp();
        return {};
    }

    [[nodiscard]] pid_t pid() const override {
        return child_ ? child_->pid : 0;
    }
    [[nodiscard]] bool runs() const override {
        return child_ && !exit_status_;
    }
    [[nodiscard]] bool is_connected() const override {
        return qmp_ != nullptr;
    }

    void take_step(StopStepKind kind, milliseconds limit, Failure failed) override {
        switch (kind) {
        case StopStepKind::guest_shutdown:
            return; // the supervisor's own
        case StopStepKind::system_powerdown:
            return take_qmp_step("system_powerdown", limit, std::move(failed));
        case StopStepKind::qmp_quit:
            return take_qmp_step("quit", limit, std::move(failed));
        case StopStepKind::terminate:
            return send_signal(SIGTERM);
        case StopStepKind::kill:
            return send_signal(SIGKILL);
        }
    }

    void resume(std::function<void(const Result<void>&)> done) override {
        if (!qmp_)
            return;
        qmp_->execute("cont", "", qmp_command_timeout,
                      [done = std::move(done)](const Result<std::string>& reply) {
                          if (reply)
                              done({});
                          else
                              done(tl::unexpected<Error>(reply.error()));
                      });
    }

private:
    void send_signal(int signal) {
        if (runs())
            ::syscall(SYS_pidfd_send_signal, child_->pidfd.get(), signal, nullptr, 0);
    }

    void kill_and_reap() {
        send_signal(SIGKILL);
        loop_.unwatch(child_->pidfd.get());
        static_cast<void>(reap(*child_));
        child_.reset();
    }

    /// Its first threads and pages are where they shall be already.
    Result<ChildProcess> launch_in_place(ProcessLauncher& launcher, const ProcessSpec& spec) {
        if (!pinning())
            return launcher.launch(spec);
        HR_TRY(const auto placed,
               host::ScopedPlacement::enter(pinning()->others, pinning()->memory_nodes));
        return launcher.launch(spec);
    }

    [[nodiscard]] const Pinning* pinning() const {
        return config_.pinning != nullptr && config_.pinning->has_value() ? &**config_.pinning
                                                                          : nullptr;
    }

    /// Each vCPU to the processors of its NUMA node; all other threads have those of all nodes from
    /// the start.
    void pin_vcpus_and_say_started() {
        if (!pinning())
            return hooks_.on_started();
        qmp_->execute(
            "query-cpus-fast", "", qmp_command_timeout, [this](const Result<std::string>& cpus) {
                if (const auto pinned =
                        cpus.and_then([this](const std::string& json) { return pin_each(json); });
                    !pinned)
                    hooks_.on_warning(fmt::format("The VM's processors are not pinned: {}",
                                                  pinned.error().describe()));
                hooks_.on_started();
            });
    }

    /// @param cpus_json of query-cpus-fast
    Result<void> pin_each(const std::string& cpus_json) {
        HR_TRY(const auto threads, qemu::vcpu_threads(cpus_json));
        for (const auto& [index, thread] : threads) {
            if (index >= pinning()->vcpus.size())
                continue;
            // QEMU may be its guest's by now: it shall not have us pin what is not its own.
            if (!path_exists(fmt::format("/proc/{}/task/{}", child_->pid, thread)))
                return fail(ErrorCode::corrupt_data,
                            fmt::format("QEMU names a thread {} that is not its own", thread));
            HR_CHECK(host::set_thread_cpus(thread, pinning()->vcpus[index]));
        }
        return {};
    }

    // --- QMP -----------------------------------------------------------------------------------

    void connect_qmp() {
        if (!runs() || qmp_)
            return;
        const auto number = qmp_number_;
        auto client = qemu::QmpClient::connect(
            loop_, config_.qmp_socket,
            [this, number](const qemu::QmpEvent& event) {
                if (number == qmp_number_)
                    on_qmp_event(event);
            },
            [this, number] {
                if (number == qmp_number_)
                    on_qmp_closed();
            });
        if (!client) {
            timers_.after(qmp_retry_delay(since(launched_)), [this] { connect_qmp(); });
            return;
        }
        qmp_ = std::move(*client);
        ask_qmp_status();
    }

    void ask_qmp_status() {
        if (!qmp_)
            return;
        qmp_->execute("query-status", "", qmp_command_timeout,
                      [this](const Result<std::string>& reply) {
                          if (!reply)
                              return;
                          hooks_.on_status(json_member(*reply, "status"));
                          if (std::exchange(answered_, true))
                              return;
                          hooks_.on_answer();
                          pin_vcpus_and_say_started();
                      });
    }

    void on_qmp_event(const qemu::QmpEvent& event) {
        log::debug("QMP event {} {}", event.name, printable(event.data_json));
        if (event.name == "SHUTDOWN") {
            end_.shutdown = qemu::shutdown_reason(event.data_json);
        } else if (event.name == "GUEST_PANICKED") {
            end_.panicked = true;
            end_.panic_message = qemu::panic_message(event.data_json);
        } else if (event.name == "BLOCK_IO_ERROR") {
            hooks_.on_disk_error(json_flag(event.data_json, "nospace"),
                                 json_member(event.data_json, "reason"));
        } else if (event.name == "STOP" || event.name == "RESUME") {
            ask_qmp_status();
        }
    }

    /// Not at once: the client may be the one that is calling us.
    void drop_qmp() {
        ++qmp_number_;
        loop_.post([client = std::shared_ptr(std::move(qmp_))] {});
    }

    void on_qmp_closed() {
        drop_qmp();
        if (exit_status_)
            finish_soon();
        else
            timers_.after(100ms, [this] { connect_qmp(); });
    }

    void take_qmp_step(const char* command, milliseconds limit, Failure failed) {
        if (!qmp_) {
            // Posted, so that steps do not begin within one another.
            timers_.after(0ms, [failed = std::move(failed)] {
                failed({ErrorCode::unavailable, "QMP is not connected", {}, 0});
            });
            return;
        }
        qmp_->execute(command, "", limit,
                      [failed = std::move(failed)](const Result<std::string>& reply) {
                          // A closed connection is how `quit` ends; then the process does, too.
                          if (!reply && reply.error().code != ErrorCode::unavailable)
                              failed(reply.error());
                      });
    }

    // --- the end -------------------------------------------------------------------------------

    void on_process_end() {
        loop_.unwatch(child_->pidfd.get());
        auto status = reap(*child_);
        if (!status)
            log::error("{}", status.error().describe());
        exit_status_ = status ? *status : ExitStatus{true, 1, 0};
        if (!qmp_)
            return finish_soon();
        // Its last events may still lie in the QMP socket.
        last_events_timer_ = timers_.after(config_.last_events, [this] {
            drop_qmp();
            finish_soon();
        });
    }

    /// After what the host API's thread has already posted, such as the boot.error of a guest that
    /// then reset itself.
    void finish_soon() {
        timers_.cancel(last_events_timer_);
        timers_.after(0ms, [this] {
            if (std::exchange(finished_, true))
                return; // both ways to get here were taken
            end_.exit = *exit_status_;
            // Ours go with us.
            const auto on_end = std::move(hooks_.on_end);
            const auto end = std::move(end_);
            on_end(end);
        });
    }

    EventLoop& loop_;
    QemuProcessConfig config_;
    MachineHooks hooks_;
    Timers timers_;
    std::optional<ChildProcess> child_;
    Clock::time_point launched_;
    std::optional<ExitStatus> exit_status_; ///< Reaped; waiting for the last QMP events.
    std::unique_ptr<qemu::QmpClient> qmp_;
    unsigned qmp_number_ = 0; ///< Of the connection; a dropped one may still call once.
    bool answered_ = false;
    bool finished_ = false;
    MachineEnd end_;
    EventLoop::TimerId last_events_timer_ = 0;
};

} // namespace

Result<std::unique_ptr<Machine>> start_qemu_process(EventLoop& loop, ProcessLauncher& launcher,
                                                    const QemuProcessConfig& config, Launch launch,
                                                    MachineHooks hooks) {
    ProcessSpec spec;
    spec.argv = std::move(launch.argv);
    spec.user = std::move(launch.user);
    spec.unlimited_locked_memory = launch.unlimited_locked_memory;
    spec.cgroup_fd = launch.cgroup_fd;
    spec.stdout_fd = config.stdout_fd;
    spec.stderr_fd = config.stderr_fd;
    for (const auto& [number, fd] : launch.pass_fds)
        spec.pass_fds[number] = fd.get();
    auto process = std::make_unique<QemuProcess>(loop, config, std::move(hooks));
    HR_CHECK(process->launch(launcher, spec));
    return process;
}

} // namespace host_runner::instance

// SPDX-License-Identifier: Apache-2.0
#include "host_runner/instance/supervisor.hpp"

#include <csignal>
#include <optional>

#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "fakes/temporary_directory.hpp"
#include "host_runner/base/files.hpp"
#include "host_runner/host/affinity.hpp"

namespace host_runner::instance {
namespace {

using namespace std::chrono_literals;
using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::Field;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

using Kind = RunEvent::Kind;

/// A supervisor over tests/fakes/fake_qemu.cpp, a real process.
class SupervisorTest : public testing::Test {
protected:
    SupervisorTest() : loop_(std::move(EventLoop::create().value())) {
        config_.id = "0123456789ab";
        config_.paths = paths_;
        config_.reports_progress = false;
        config_.began = EventLoop::Clock::now();
        config_.times.restart = {5ms, 20ms, 1h};
        config_.times.resume_try = 5ms;
        config_.logs = open_qemu_logs(folder_.path() + "/nowhere", folder_.path(), "id").value();
        hooks_.next_launch = [this](LaunchCause cause) -> Result<Launch> {
            causes_.push_back(cause);
            Launch launch;
            launch.argv = {FAKE_QEMU, paths_.qmp_socket()};
            const auto index = std::min(causes_.size(), options_.size());
            if (index > 0)
                launch.argv.insert(launch.argv.end(), options_[index - 1].begin(),
                                   options_[index - 1].end());
            return launch;
        };
        hooks_.on_event = [this](const RunEvent& event) {
            events_.push_back(event);
            if (on_event_)
                on_event_(event);
        };
        hooks_.on_end = [this](const End& end) {
            end_ = end;
            loop_->stop();
        };
    }

    /// The arguments of the first, second, ... start; the last ones serve all later starts.
    void qemu_does(std::vector<std::vector<std::string>> options) {
        options_ = std::move(options);
    }
    void with_guest_api() {
        config_.guest_api = net::connect_unix(folder_ / "guest.sock");
    }
    std::string guest_option() const {
        return "guest=" + (folder_ / "guest.sock");
    }

    Supervisor& supervisor() {
        if (!supervisor_)
            supervisor_.emplace(*loop_, launcher_, std::move(config_), hooks_);
        return *supervisor_;
    }
    End run() {
        const auto started = supervisor().start();
        EXPECT_TRUE(started) << started.error().describe();
        return follow();
    }
    /// Runs the loop until the end, or fails after 20 s.
    End follow() {
        const auto guard = loop_->call_after(20s, [this] {
            ADD_FAILURE() << "no end within 20 s";
            loop_->stop();
        });
        if (!end_) {
            EXPECT_TRUE(loop_->run());
        }
        loop_->cancel(guard);
        return end_.value_or(End{});
    }
    void on(Kind kind, std::function<void()> action) {
        on_event_ = [kind, action = std::move(action)](const RunEvent& event) {
            if (event.kind == kind)
                action();
        };
    }
    std::vector<std::string> texts(Kind kind) const {
        std::vector<std::string> result;
        for (const auto& event : events_)
            if (event.kind == kind)
                result.push_back(event.text);
        return result;
    }

    const tests::TemporaryDirectory folder_;
    const InstancePaths paths_{folder_.path()};
    std::unique_ptr<EventLoop> loop_;
    ForkExecLauncher launcher_;
    SupervisorConfig config_;
    SupervisorHooks hooks_;
    std::vector<std::vector<std::string>> options_;
    std::vector<LaunchCause> causes_;
    std::vector<RunEvent> events_;
    std::function<void(const RunEvent&)> on_event_;
    std::optional<End> end_;
    std::optional<Supervisor> supervisor_;
};

TEST_F(SupervisorTest, reports_a_guest_that_powers_itself_off) {
    qemu_does({{"then=guest-shutdown"}});
    const auto end = run();
    EXPECT_EQ(end.reason, EndReason::guest_shutdown) << end.detail;
    EXPECT_EQ(end.exit_code, ExitCode::success);
    EXPECT_THAT(texts(Kind::ended), ElementsAre("guest_shutdown"));
}

TEST_F(SupervisorTest, reports_a_reset) {
    qemu_does({{"then=guest-reset"}});
    EXPECT_EQ(run().reason, EndReason::guest_reset);
}

TEST_F(SupervisorTest, reports_a_panic_with_its_message) {
    qemu_does({{"then=guest-panic"}});
    const auto end = run();
    EXPECT_EQ(end.reason, EndReason::guest_panic);
    EXPECT_THAT(end.detail, HasSubstr("bad luck"));
}

TEST_F(SupervisorTest, reports_a_crash_of_qemu) {
    qemu_does({{"then=crash"}});
    const auto end = run();
    EXPECT_EQ(end.reason, EndReason::qemu_died);
    EXPECT_THAT(end.detail, HasSubstr("signal 6"));
}

TEST_F(SupervisorTest, explains_a_refused_start_by_qemus_words) {
    qemu_does({{"stderr=qemu: bad option\n", "exit=1"}});
    const auto end = run();
    EXPECT_EQ(end.reason, EndReason::qemu_start_failed);
    EXPECT_THAT(end.detail, HasSubstr("bad option"));
    EXPECT_THAT(texts(Kind::started), IsEmpty());
}

TEST_F(SupervisorTest, ignores_the_words_of_an_earlier_boot) {
    ASSERT_TRUE(write_all(config_.logs.stderr_fd.get(), "words of yesterday\n"));
    qemu_does({{"exit=1"}});
    EXPECT_THAT(run().detail, Not(HasSubstr("yesterday")));
}

TEST_F(SupervisorTest, fails_to_start_without_the_program) {
    hooks_.next_launch = [](LaunchCause) -> Result<Launch> {
        Launch launch;
        launch.argv = {"/no/such/qemu"};
        return launch;
    };
    const auto started = supervisor().start();
    ASSERT_FALSE(started);
    EXPECT_EQ(started.error().code, ErrorCode::not_found);
    EXPECT_FALSE(end_) << "nothing was started, so nothing ended";
}

TEST_F(SupervisorTest, has_qemu_and_its_vcpus_run_where_they_shall) {
    const auto cpus = host::thread_cpus(0).value();
    config_.pinning = Pinning{{{cpus.back()}}, cpus, {}};
    std::vector<std::uint32_t> seen;
    on(Kind::started, [&] {
        seen = host::thread_cpus(supervisor().status().qemu_pid).value_or(seen);
        supervisor().request_stop({0ms, true});
    });
    qemu_does({{}});
    static_cast<void>(run());
    EXPECT_THAT(seen, ElementsAre(cpus.back()));
    EXPECT_EQ(host::thread_cpus(0).value(), cpus) << "the runner itself stays where it is";
    EXPECT_THAT(texts(Kind::warning), IsEmpty());
}

TEST_F(SupervisorTest, pins_no_thread_that_is_not_qemus) {
    const auto cpus = host::thread_cpus(0).value();
    config_.pinning = Pinning{{{cpus.back()}}, cpus, {}};
    qemu_does({{"vcpu=" + std::to_string(::getpid())}});
    on(Kind::started, [&] { supervisor().request_stop({0ms, true}); });
    static_cast<void>(run());
    EXPECT_EQ(host::thread_cpus(0).value(), cpus);
    EXPECT_THAT(texts(Kind::warning), ElementsAre(HasSubstr("a thread")));
}

TEST_F(SupervisorTest, marks_each_boot_in_every_log) {
    const auto logs = config_.logs.stderr_path;
    const auto serial = paths_.serial_log();
    qemu_does({{"then=guest-shutdown"}});
    static_cast<void>(run());
    for (const auto& path : {logs, serial})
        EXPECT_THAT(read_file(path, 4096).value_or(""), HasSubstr("===== boot @ ")) << path;
}

TEST_F(SupervisorTest, knows_the_guest_when_it_says_ready) {
    with_guest_api();
    qemu_does({{guest_option()}});
    LiveStatus status;
    on_event_ = [&](const RunEvent& event) {
        if (event.kind == Kind::started) {
            supervisor().on_guest_event({"boot.progress", "data disk ready"});
            supervisor().on_guest_event({"boot.progress", "done"});
        } else if (event.kind == Kind::ready) {
            status = supervisor().status();
            supervisor().request_stop({0ms, true});
        }
    };
    static_cast<void>(run());
    EXPECT_EQ(status.phase, "ready");
    EXPECT_EQ(status.qmp_status, "running");
    EXPECT_EQ(status.guest_info_json, R"({"version":"fake"})");
    EXPECT_EQ(status.services_json, "[]");
    EXPECT_GE(status.ready_after_ms, 0);
    EXPECT_GT(status.qemu_pid, 0);
    EXPECT_THAT(texts(Kind::progress), ElementsAre("data disk ready"));
}

TEST_F(SupervisorTest, knows_the_services_of_a_guest_that_does_not_get_ready) {
    with_guest_api();
    qemu_does({{guest_option()}});
    std::function<void()> look = [&] {
        if (supervisor().status().services_json == "[]")
            supervisor().request_stop({0ms, true});
        else
            loop_->call_after(1ms, look);
    };
    on(Kind::started, [&] {
        supervisor().on_guest_event({"boot.error", "Service web failed: no such program"});
        look();
    });
    EXPECT_EQ(run().reason, EndReason::killed_by_force);
    EXPECT_THAT(texts(Kind::ready), IsEmpty());
}

TEST_F(SupervisorTest, asks_the_guest_anew_whenever_somebody_wants_its_services) {
    with_guest_api();
    qemu_does({{guest_option()}});
    std::vector<std::string> answers;
    const auto take = [&](const Result<std::string>& services) {
        answers.push_back(services ? *services : services.error().message);
        if (answers.size() == 3)
            supervisor().request_stop({0ms, true});
    };
    on_event_ = [&](const RunEvent& event) {
        if (event.kind == Kind::started) {
            supervisor().ask_services(take);
            supervisor().on_guest_event({"boot.progress", "done"});
        } else if (event.kind == Kind::ready) {
            supervisor().ask_services(take);
            supervisor().ask_services(take);
        }
    };
    static_cast<void>(run());
    EXPECT_THAT(answers, ElementsAre("The guest cannot be asked at the moment", "[]", "[]"));
}

TEST_F(SupervisorTest, leaves_nobody_waiting_for_services_when_the_vm_is_stopped) {
    with_guest_api();
    qemu_does({{guest_option()}});
    std::vector<std::string> answers;
    on(Kind::ready, [&] {
        supervisor().ask_services([&](const Result<std::string>& services) {
            answers.push_back(services ? *services : services.error().message);
        });
        supervisor().request_stop({0ms, true});
    });
    on_event_ = [&, on_ready = on_event_](const RunEvent& event) {
        if (event.kind == Kind::started)
            supervisor().on_guest_event({"boot.progress", "done"});
        on_ready(event);
    };
    static_cast<void>(run());
    EXPECT_THAT(answers, ElementsAre("The VM is being stopped"));
}

TEST_F(SupervisorTest, is_ready_also_when_the_guest_does_not_say_what_it_is) {
    config_.guest_api = [] {
        return Result<UniqueFd>(fail(ErrorCode::unavailable, "nobody"));
    };
    on_event_ = [&](const RunEvent& event) {
        if (event.kind == Kind::started)
            supervisor().on_guest_event({"boot.progress", "done"});
        else if (event.kind == Kind::ready)
            supervisor().request_stop({0ms, true});
    };
    EXPECT_EQ(run().reason, EndReason::killed_by_force);
    EXPECT_EQ(texts(Kind::ready).size(), 1U);
}

TEST_F(SupervisorTest, disarms_what_the_guest_writes) {
    on(Kind::started, [this] {
        supervisor().on_guest_event({"boot.error", "\x1b[31mred"});
        supervisor().request_stop({0ms, true});
    });
    static_cast<void>(run());
    EXPECT_THAT(texts(Kind::boot_error), ElementsAre("?[31mred"));
}

TEST_F(SupervisorTest, stores_the_guests_identity) {
    const auto path = paths_.instance_info();
    on(Kind::started, [this] {
        supervisor().on_guest_event({"instance.info", R"({"instance_id":"ab"})"});
        supervisor().on_guest_event({"instance.info", "no JSON"});
        supervisor().request_stop({0ms, true});
    });
    static_cast<void>(run());
    EXPECT_EQ(read_file(path, 100).value_or(""), R"({"instance_id":"ab"})");
    EXPECT_THAT(texts(Kind::warning), Contains(HasSubstr("instance.info")));
}

TEST_F(SupervisorTest, stops_over_the_guest_api_first) {
    with_guest_api();
    qemu_does({{guest_option()}});
    on(Kind::started, [this] { supervisor().request_stop({}); });
    const auto end = run();
    EXPECT_EQ(end.reason, EndReason::stop_requested);
    EXPECT_EQ(end.exit_code, ExitCode::success);
    EXPECT_THAT(texts(Kind::stop_step), ElementsAre("guest API Shutdown"));
}

TEST_F(SupervisorTest, presses_the_power_button_when_the_guest_api_refuses) {
    with_guest_api();
    qemu_does({{guest_option(), "shutdown=refuse"}});
    on(Kind::started, [this] { supervisor().request_stop({}); });
    EXPECT_EQ(run().reason, EndReason::stop_requested);
    EXPECT_THAT(texts(Kind::stop_step), ElementsAre("guest API Shutdown", "QMP system_powerdown"));
}

TEST_F(SupervisorTest, goes_all_the_way_to_sigkill) {
    qemu_does({{"powerdown=ignore", "quit=ignore", "term=ignore"}});
    on(Kind::started, [this] { supervisor().request_stop({200ms, false}); });
    const auto end = run();
    EXPECT_EQ(end.reason, EndReason::killed_by_force);
    EXPECT_EQ(end.exit_code, ExitCode::stopped_by_force);
    EXPECT_THAT(texts(Kind::stop_step),
                ElementsAre("QMP system_powerdown", "QMP quit", "SIGTERM", "SIGKILL"));
}

TEST_F(SupervisorTest, ends_by_sigterm_when_qmp_is_deaf) {
    qemu_does({{"powerdown=ignore", "quit=ignore"}});
    on(Kind::started, [this] { supervisor().request_stop({200ms, false}); });
    EXPECT_EQ(run().reason, EndReason::stop_requested);
    EXPECT_THAT(texts(Kind::stop_step), Contains("SIGTERM"));
    EXPECT_THAT(texts(Kind::stop_step), Not(Contains("SIGKILL")));
}

TEST_F(SupervisorTest, takes_the_next_step_on_a_second_signal) {
    qemu_does({{"powerdown=ignore"}});
    on(Kind::started, [this] {
        supervisor().hurry_stop();
        supervisor().hurry_stop();
    });
    EXPECT_EQ(run().reason, EndReason::stop_requested);
    EXPECT_THAT(texts(Kind::stop_step), ElementsAre("QMP system_powerdown", "QMP quit"));
}

TEST_F(SupervisorTest, kills_at_once_by_force) {
    on(Kind::started, [this] { supervisor().request_stop({0ms, true}); });
    EXPECT_EQ(run().reason, EndReason::killed_by_force);
    EXPECT_THAT(texts(Kind::stop_step), ElementsAre("SIGKILL"));
}

TEST_F(SupervisorTest, does_not_wait_for_a_guest_that_never_reported) {
    config_.reports_progress = true;
    on(Kind::started, [this] { supervisor().request_stop({}); });
    EXPECT_EQ(run().reason, EndReason::stop_requested);
    EXPECT_THAT(texts(Kind::stop_step), ElementsAre("QMP quit"));
}

TEST_F(SupervisorTest, can_be_stopped_before_qmp_answers) {
    ASSERT_TRUE(supervisor().start());
    supervisor().request_stop({1s, false});
    const auto end = follow();
    EXPECT_EQ(end.exit_code, ExitCode::success) << end.detail;
}

TEST_F(SupervisorTest, tells_the_stopper_each_step_and_the_end) {
    std::vector<StopStep> steps;
    qemu_does({{"powerdown=ignore"}});
    on(Kind::started, [this, &steps] {
        supervisor().request_stop({}, [&steps](const StopStep& step) { steps.push_back(step); });
        supervisor().hurry_stop();
    });
    static_cast<void>(run());
    ASSERT_EQ(steps.size(), 3U);
    EXPECT_EQ(steps[0].text, "QMP system_powerdown");
    EXPECT_GT(steps[0].limit_ms, 0);
    EXPECT_EQ(steps[1].text, "QMP quit");
    EXPECT_TRUE(steps[2].done);
}

TEST_F(SupervisorTest, starts_a_failed_vm_again) {
    config_.restart = {true, 3};
    qemu_does({{"then=guest-reset"}, {"then=guest-panic"}, {"then=guest-shutdown"}});
    EXPECT_EQ(run().reason, EndReason::guest_shutdown);
    EXPECT_THAT(causes_,
                ElementsAre(LaunchCause::first, LaunchCause::restart, LaunchCause::restart));
    EXPECT_THAT(texts(Kind::restart),
                ElementsAre(AllOf(HasSubstr("guest_reset"), HasSubstr("1 of 3")),
                            AllOf(HasSubstr("bad luck"), HasSubstr("2 of 3"))));
    EXPECT_EQ(supervisor().status().restarts, 2U);
}

TEST_F(SupervisorTest, gives_up_restarting_at_the_bound) {
    config_.restart = {true, 2};
    qemu_does({{"then=guest-reset"}});
    const auto end = run();
    EXPECT_EQ(end.reason, EndReason::guest_reset);
    EXPECT_EQ(causes_.size(), 3U);
}

TEST_F(SupervisorTest, does_not_restart_a_refused_command_line) {
    config_.restart = {true, 2};
    qemu_does({{"exit=1"}});
    EXPECT_EQ(run().reason, EndReason::qemu_start_failed);
    EXPECT_EQ(causes_.size(), 1U);
}

TEST_F(SupervisorTest, does_not_restart_what_was_stopped) {
    config_.restart = {true, 2};
    on(Kind::started, [this] { supervisor().request_stop({}); });
    EXPECT_EQ(run().reason, EndReason::stop_requested);
    EXPECT_EQ(causes_.size(), 1U);
}

TEST_F(SupervisorTest, can_be_stopped_while_it_waits_to_restart) {
    config_.restart = {true, 2};
    config_.times.restart.first = 1h;
    config_.times.restart.longest = 1h;
    qemu_does({{"then=guest-reset"}});
    on(Kind::restart, [this] { loop_->post([this] { supervisor().request_stop({}); }); });
    const auto end = run();
    EXPECT_EQ(end.reason, EndReason::stop_requested);
    EXPECT_EQ(end.exit_code, ExitCode::success);
}

constexpr const char* port_error =
    "stderr=qemu: Could not set up host forwarding rule 'tcp:127.0.0.1:1-:80'\n";

TEST_F(SupervisorTest, tries_another_port_when_one_was_lost) {
    qemu_does({{port_error, "exit=1"}, {"then=guest-shutdown"}});
    EXPECT_EQ(run().reason, EndReason::guest_shutdown);
    EXPECT_THAT(causes_, ElementsAre(LaunchCause::first, LaunchCause::port_lost));
}

TEST_F(SupervisorTest, ends_when_a_fixed_port_was_lost) {
    auto launch = hooks_.next_launch;
    hooks_.next_launch = [launch](LaunchCause cause) -> Result<Launch> {
        if (cause == LaunchCause::port_lost)
            return fail(ErrorCode::already_exists, "All ports are fixed");
        return launch(cause);
    };
    qemu_does({{port_error, "exit=1"}});
    const auto end = run();
    EXPECT_EQ(end.reason, EndReason::qemu_start_failed);
    EXPECT_THAT(end.detail, HasSubstr("forwarding"));
}

TEST_F(SupervisorTest, does_not_try_ports_for_ever) {
    qemu_does({{port_error, "exit=1"}});
    EXPECT_EQ(run().reason, EndReason::qemu_start_failed);
    EXPECT_EQ(causes_.size(), 3U);
}

TEST_F(SupervisorTest, lets_a_vm_go_on_once_the_disk_has_room) {
    qemu_does({{"then=enospc"}});
    on(Kind::notice, [this] { supervisor().request_stop({0ms, true}); });
    static_cast<void>(run());
    EXPECT_THAT(texts(Kind::warning), Contains(HasSubstr("full")));
    EXPECT_THAT(texts(Kind::notice), Contains(HasSubstr("goes on")));
}

TEST_F(SupervisorTest, leaves_no_process_when_it_is_destroyed) {
    on(Kind::started, [this] { loop_->stop(); });
    ASSERT_TRUE(supervisor().start());
    ASSERT_TRUE(loop_->run());
    const pid_t pid = supervisor().status().qemu_pid;
    ASSERT_GT(pid, 0);
    supervisor_.reset();
    EXPECT_EQ(::kill(pid, 0), -1);
    EXPECT_EQ(errno, ESRCH);
}

TEST_F(SupervisorTest, two_share_a_loop) {
    qemu_does({{"then=guest-shutdown"}});
    const tests::TemporaryDirectory other_folder;
    SupervisorConfig other;
    other.id = "ba9876543210";
    other.paths = InstancePaths(other_folder.path());
    other.began = EventLoop::Clock::now();
    other.logs = open_qemu_logs("/nowhere", other_folder.path(), "id").value();
    SupervisorHooks hooks = hooks_;
    hooks.next_launch = [&](LaunchCause) -> Result<Launch> {
        Launch launch;
        launch.argv = {FAKE_QEMU, InstancePaths(other_folder.path()).qmp_socket(),
                       "then=guest-reset"};
        return launch;
    };
    std::optional<End> other_end;
    hooks.on_end = [&](const End& end) {
        other_end = end;
        if (end_)
            loop_->stop();
    };
    hooks_.on_end = [&](const End& end) {
        end_ = end;
        if (other_end)
            loop_->stop();
    };
    Supervisor second(*loop_, launcher_, std::move(other), std::move(hooks));
    ASSERT_TRUE(second.start());
    EXPECT_EQ(run().reason, EndReason::guest_shutdown);
    EXPECT_EQ(other_end.value_or(End{}).reason, EndReason::guest_reset);
}

} // namespace
} // namespace host_runner::instance

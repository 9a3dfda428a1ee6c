// SPDX-License-Identifier: Apache-2.0
#include "host_runner/agent/service_supervisor.hpp"

#include <algorithm>
#include <set>

#include <gmock/gmock.h>

#include "fakes/temporary_directory.hpp"
#include "host_runner/base/files.hpp"

namespace host_runner::agent {
namespace {

using namespace std::chrono_literals;
using protocol::DependencyCondition;
using protocol::RestartPolicy;
using testing::ElementsAre;
using testing::HasSubstr;

TEST(RestartDelay, doubles_up_to_its_limit) {
    RestartDelay delay({.first = 100ms, .longest = 350ms, .reset_after = 10s});
    EXPECT_EQ(delay.after(1s), 100ms);
    EXPECT_EQ(delay.after(1s), 200ms);
    EXPECT_EQ(delay.after(1s), 350ms);
    EXPECT_EQ(delay.after(1s), 350ms);
}

TEST(RestartDelay, starts_anew_after_a_long_run) {
    RestartDelay delay({.first = 100ms, .longest = 60s, .reset_after = 10s});
    EXPECT_EQ(delay.after(1s), 100ms);
    EXPECT_EQ(delay.after(10s), 100ms);
    EXPECT_EQ(delay.after(1s), 200ms);
}

/// Real children, started through the real `guest_agent launch`.
class Services : public testing::Test {
protected:
    void SetUp() override {
        auto made = EventLoop::create();
        ASSERT_TRUE(made);
        loop = std::move(*made);
        options.agent_program = GUEST_AGENT;
        options.restart_times = {.first = 1ms, .longest = 1ms, .reset_after = 1h};
    }

    protocol::AppService& add(const std::string& name, const std::string& script) {
        PreparedService prepared;
        prepared.service.name = name;
        prepared.service.stop_grace_period = 30s;
        prepared.launch.command = {"/bin/sh", "-c", script};
        prepared.environment = {"PATH=/usr/bin:/bin", "FOLDER=" + folder.path()};
        list.push_back(std::move(prepared));
        return list.back().service;
    }

    void start() {
        ServiceSupervisor::Callbacks callbacks;
        callbacks.on_change = [this](std::vector<protocol::ServiceStatus> now) {
            statuses = std::move(now);
        };
        callbacks.on_ready = [this] {
            events.emplace_back("ready");
        };
        callbacks.on_start_failure = [this](const std::string& text) {
            events.push_back("failure: " + text);
        };
        callbacks.on_all_ended = [this] {
            events.emplace_back("all ended");
        };
        callbacks.on_counters = [this](const std::string& name, auto shared) {
            counters[name] = std::move(shared);
        };
        supervisor.emplace(*loop, launcher, logs, options, std::move(callbacks));
        supervisor->start(list);
    }

    /// Runs the loop until `condition`; false after a time that only a hang reaches.
    template <class Condition>
    bool run_until(Condition condition) {
        const auto deadline = std::chrono::steady_clock::now() + 40s;
        while (!condition()) {
            if (std::chrono::steady_clock::now() > deadline || !loop->run_once(1s))
                return false;
        }
        return true;
    }
    bool run_until_event(const std::string& text) {
        return run_until([&] {
            return std::any_of(events.begin(), events.end(), [&](const auto& event) {
                return event.find(text) != std::string::npos;
            });
        });
    }
    bool run_until_state(std::size_t index, const std::string& state) {
        return run_until([&] { return index < statuses.size() && statuses[index].state == state; });
    }
    bool stop() {
        bool stopped = false;
        supervisor->stop([&] { stopped = true; });
        return run_until([&] { return stopped; });
    }
    [[nodiscard]] std::vector<std::string> printed(const std::string& service = {}) const {
        std::vector<std::string> result;
        for (const auto& line : logs.lines(service, std::nullopt))
            if (line.service != LogStore::agent_name)
                result.push_back(line.text);
        return result;
    }

    tests::TemporaryDirectory folder;
    std::unique_ptr<EventLoop> loop;
    ForkExecLauncher launcher;
    LogStore logs{folder / "log", nullptr};
    ServiceSupervisor::Options options;
    std::vector<PreparedService> list;
    std::vector<std::string> events;
    std::vector<protocol::ServiceStatus> statuses;
    std::map<std::string, std::shared_ptr<const wasm::worker::Counters>> counters;
    std::optional<ServiceSupervisor> supervisor;
};

TEST_F(Services, is_ready_at_once_without_services_and_never_ends) {
    start();
    EXPECT_THAT(events, ElementsAre("ready"));
}

TEST_F(Services, runs_a_service_and_knows_its_pid_and_program) {
    add("web", "exec sleep 1000");
    start();
    ASSERT_TRUE(run_until_event("ready"));
    ASSERT_EQ(statuses.size(), 1U);
    EXPECT_EQ(statuses[0].state, "running");
    EXPECT_GT(statuses[0].pid, 0);
    EXPECT_EQ(statuses[0].program_sha256.size(), 64U);
    EXPECT_FALSE(statuses[0].exit_code);
}

TEST_F(Services, keeps_both_output_streams_in_order) {
    add("job", "echo one; echo two >&2; echo three");
    start();
    ASSERT_TRUE(run_until([&] { return printed().size() == 3; }));
    EXPECT_THAT(printed("job"), ElementsAre("one", "two", "three"));
}

TEST_F(Services, tells_when_the_last_one_has_ended) {
    add("job", "exit 0");
    start();
    ASSERT_TRUE(run_until_event("all ended"));
    EXPECT_EQ(statuses[0].state, "exited");
    EXPECT_EQ(statuses[0].exit_code, 0);
}

TEST_F(Services, counts_a_death_by_signal_as_shells_do) {
    add("job", "kill -KILL $$");
    start();
    ASSERT_TRUE(run_until_state(0, "exited"));
    EXPECT_EQ(statuses[0].exit_code, 137);
}

TEST_F(Services, fails_a_service_whose_program_is_missing_and_says_why) {
    add("web", "");
    list.back().launch.command = {"no-such-program"};
    start();
    ASSERT_TRUE(run_until_event("all ended"));
    EXPECT_EQ(statuses[0].state, "failed");
    EXPECT_THAT(events[0], HasSubstr("failure: Service web failed"));
    EXPECT_THAT(events[0], HasSubstr("no-such-program"));
}

TEST_F(Services, has_counters_for_modules_only) {
    add("program", "exit 0");
    add("module", "").module.emplace().world = protocol::World::function;
    list.back().launch.module.emplace().path = folder / "missing.wasm";
    start();
    ASSERT_TRUE(run_until_state(1, "failed"));
    ASSERT_EQ(counters.size(), 1U);
    EXPECT_EQ(counters.at("module")->values().at("call"), 0U);
}

TEST_F(Services, fails_a_service_with_limits_where_there_are_no_cgroups) {
    add("web", "exit 0").pids_limit = 5;
    start();
    EXPECT_EQ(statuses[0].state, "failed");
}

TEST_F(Services, starts_a_dependent_only_when_the_other_runs) {
    add("web", "echo web; exec sleep 1000").depends_on = {{"db", DependencyCondition::started}};
    add("db", "exec sleep 1000");
    start();
    EXPECT_EQ(statuses[0].state, "waiting");
    ASSERT_TRUE(run_until_event("ready"));
    EXPECT_EQ(statuses[0].state, "running");
}

TEST_F(Services, waits_for_the_success_of_a_job) {
    add("web", "test -e $FOLDER/made && exec sleep 1000").depends_on = {
        {"job", DependencyCondition::completed_successfully}};
    add("job", "touch $FOLDER/made");
    start();
    EXPECT_TRUE(run_until_event("ready"));
    EXPECT_THAT(events, ElementsAre("ready"));
}

TEST_F(Services, fails_the_dependents_of_a_failed_job) {
    add("web", "exec sleep 1000").depends_on = {
        {"job", DependencyCondition::completed_successfully}};
    add("job", "exit 3");
    start();
    ASSERT_TRUE(run_until_event("all ended"));
    EXPECT_EQ(statuses[0].state, "failed");
    EXPECT_EQ(statuses[1].exit_code, 3);
}

TEST_F(Services, waits_for_health) {
    add("web", "exec sleep 1000").depends_on = {{"db", DependencyCondition::healthy}};
    auto& db = add("db", "exec sleep 1000");
    db.health_check.emplace();
    db.health_check->command = {"/bin/sh", "-c", "test -e $FOLDER/healthy"};
    db.health_check->interval = 1ms;
    db.health_check->retries = 100'000;
    start();
    ASSERT_TRUE(run_until_state(1, "running"));
    EXPECT_EQ(statuses[0].state, "waiting");
    ASSERT_TRUE(write_file_atomic(folder / "healthy", ""));
    ASSERT_TRUE(run_until_event("ready"));
    EXPECT_EQ(statuses[1].state, "healthy");
    EXPECT_EQ(statuses[0].state, "running");
}

TEST_F(Services, becomes_unhealthy_after_so_many_failures) {
    auto& web = add("web", "exec sleep 1000");
    web.health_check.emplace();
    web.health_check->command = {"/bin/sh", "-c", "rm $FOLDER/once"};
    web.health_check->interval = 1ms;
    web.health_check->start_period = 30s;
    web.health_check->retries = 2;
    ASSERT_TRUE(write_file_atomic(folder / "once", ""));
    start();
    ASSERT_TRUE(run_until_state(0, "healthy"));
    EXPECT_TRUE(run_until_state(0, "unhealthy"));
    EXPECT_THAT(events, ElementsAre("ready"));
}

TEST_F(Services, is_unhealthy_when_a_check_never_answers_in_time) {
    auto& web = add("web", "exec sleep 1000");
    web.health_check.emplace();
    web.health_check->command = {"/bin/sleep", "1000"};
    web.health_check->interval = 1ms;
    web.health_check->timeout = 1ms;
    web.health_check->retries = 1;
    start();
    ASSERT_TRUE(run_until_state(0, "unhealthy"));
    EXPECT_THAT(events[0], HasSubstr("no answer in time"));
}

TEST_F(Services, restarts_on_failure_at_most_so_often) {
    auto& job = add("job", "echo run; exit 1");
    job.restart = RestartPolicy::on_failure;
    job.max_restarts = 2;
    start();
    ASSERT_TRUE(run_until_event("all ended"));
    ASSERT_TRUE(run_until([&] { return printed().size() == 3; }));
    EXPECT_EQ(statuses[0].restarts, 2U);
    EXPECT_EQ(statuses[0].exit_code, 1);
}

TEST_F(Services, leaves_a_success_alone_with_the_policy_on_failure) {
    add("job", "exit 0").restart = RestartPolicy::on_failure;
    start();
    ASSERT_TRUE(run_until_event("all ended"));
    EXPECT_EQ(statuses[0].restarts, 0U);
}

TEST_F(Services, restarts_always_until_it_is_stopped) {
    add("job", "echo run").restart = RestartPolicy::always;
    start();
    ASSERT_TRUE(run_until([&] { return printed().size() >= 3; }));
    ASSERT_TRUE(stop());
    EXPECT_EQ(supervisor->statuses()[0].state, "exited");
}

TEST_F(Services, kills_what_a_service_left_in_its_group) {
    add("job", "sleep 1000 & echo $! > $FOLDER/pid");
    start();
    ASSERT_TRUE(run_until_event("all ended"));
    const auto pid = std::stoi(*read_file(folder / "pid", 20));
    // Reparented to whoever reaps here; at the latest then it is gone.
    EXPECT_TRUE(run_until([&] { return !identify_process(pid); }));
}

TEST_F(Services, stops_in_reverse_order_of_dependencies) {
    // In the background: a shell says "Terminated" of a foreground program that the signal ends.
    const std::string script = "trap 'echo $NAME; exit 0' TERM; touch $FOLDER/$NAME; "
                               "sleep 1000 & wait";
    add("db", "NAME=db; " + script);
    add("web", "NAME=web; " + script).depends_on = {{"db", DependencyCondition::started}};
    start();
    ASSERT_TRUE(
        run_until([&] { return path_exists(folder / "db") && path_exists(folder / "web"); }));
    ASSERT_TRUE(stop());
    ASSERT_TRUE(run_until([&] { return printed().size() == 2; }));
    EXPECT_THAT(printed(), ElementsAre("web", "db"));
}

TEST_F(Services, kills_what_ignores_the_stop_after_its_grace_period) {
    add("stubborn", "trap '' TERM; touch $FOLDER/up; while :; do sleep 0.01; done")
        .stop_grace_period = 1ms;
    start();
    ASSERT_TRUE(run_until([&] { return path_exists(folder / "up"); }));
    ASSERT_TRUE(stop());
    EXPECT_EQ(supervisor->statuses()[0].exit_code, 137);
}

TEST_F(Services, kills_at_once_when_it_is_told_twice) {
    add("stubborn", "trap '' TERM; touch $FOLDER/up; while :; do sleep 0.01; done");
    start();
    ASSERT_TRUE(run_until([&] { return path_exists(folder / "up"); }));
    bool stopped = false;
    supervisor->stop([&] { stopped = true; });
    supervisor->stop([] {});
    EXPECT_TRUE(run_until([&] { return stopped; }));
}

TEST_F(Services, runs_replicas_under_names_of_their_own_and_restarts_each_alone) {
    // Who makes the folder ends once, the other two stay.
    auto& web = add("web", "mkdir $FOLDER/first 2>/dev/null && exit 3; echo here; exec sleep 1000");
    web.replicas = 3;
    web.restart = RestartPolicy::on_failure;
    start();
    ASSERT_TRUE(run_until([&] { return printed("web").size() == 3; }));
    ASSERT_TRUE(run_until([&] {
        return std::all_of(statuses.begin(), statuses.end(),
                           [](const auto& one) { return one.state == "running"; });
    }));
    std::vector<std::string> names;
    std::set<std::int64_t> pids;
    std::uint32_t restarts = 0;
    for (const auto& one : statuses) {
        names.push_back(one.name);
        pids.insert(one.pid);
        restarts += one.restarts;
        EXPECT_EQ(one.replica_of, "web");
    }
    EXPECT_THAT(names, ElementsAre("web-1", "web-2", "web-3"));
    EXPECT_EQ(pids.size(), 3U);
    EXPECT_EQ(restarts, 1U);
    EXPECT_THAT(printed("web-1"), ElementsAre("here"));
    EXPECT_THAT(events, ElementsAre("ready"));
    EXPECT_TRUE(stop());
}

TEST_F(Services, waits_for_all_replicas) {
    add("web", "exec sleep 1000").depends_on = {
        {"job", DependencyCondition::completed_successfully}};
    // One ends at once, the other when it may.
    add("job",
        "mkdir $FOLDER/first 2>/dev/null && exit 0; until test -e $FOLDER/go; do sleep 0.01; done")
        .replicas = 2;
    start();
    ASSERT_TRUE(run_until([&] {
        return std::any_of(statuses.begin(), statuses.end(),
                           [](const auto& one) { return one.state == "exited"; });
    }));
    EXPECT_EQ(statuses[0].state, "waiting");
    ASSERT_TRUE(write_file_atomic(folder / "go", ""));
    EXPECT_TRUE(run_until_state(0, "running"));
    EXPECT_TRUE(run_until_event("ready"));
}

TEST_F(Services, stops_replicas_only_when_nobody_needs_them) {
    const std::string script = "trap 'echo $NAME; exit 0' TERM; touch $FOLDER/$NAME$$; "
                               "sleep 1000 & wait";
    add("db", "NAME=db; " + script).replicas = 2;
    auto& web = add("web", "NAME=web; " + script);
    web.depends_on = {{"db", DependencyCondition::started}};
    web.replicas = 2;
    start();
    ASSERT_TRUE(run_until([&] { return list_directory(folder.path())->size() == 5; })); // and log
    ASSERT_TRUE(stop());
    ASSERT_TRUE(run_until([&] { return printed().size() == 4; }));
    EXPECT_THAT(printed(), ElementsAre("web", "web", "db", "db"));
}

TEST_F(Services, leaves_nothing_when_it_is_destroyed) {
    add("web", "exec sleep 1000");
    start();
    ASSERT_TRUE(run_until_event("ready"));
    const auto pid = static_cast<pid_t>(statuses[0].pid);
    supervisor.reset();
    EXPECT_FALSE(identify_process(pid));
}

} // namespace
} // namespace host_runner::agent

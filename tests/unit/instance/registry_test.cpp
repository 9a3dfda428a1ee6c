// SPDX-License-Identifier: Apache-2.0
#include "host_runner/instance/registry.hpp"

#include <thread>

#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "fakes/instance_folders.hpp"
#include "host_runner/instance/control_server.hpp"

namespace host_runner::instance {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using tests::ForkedProcess;
using tests::make_record;
using tests::StateFolder;

constexpr auto first_id = "0123456789ab";
constexpr auto second_id = "01ffffffffff";

/// Sets a variable for one test.
class Variable {
public:
    Variable(const char* name, const char* value) : name_(name) {
        if (const char* old = std::getenv(name))
            old_ = old;
        set(value);
    }
    Variable(const Variable&) = delete;
    Variable& operator=(const Variable&) = delete;
    ~Variable() {
        set(old_ ? old_->c_str() : nullptr);
    }

private:
    void set(const char* value) const {
        if (value != nullptr)
            ::setenv(name_, value, 1);
        else
            ::unsetenv(name_);
    }
    const char* name_;
    std::optional<std::string> old_;
};

TEST(StateDirectory, is_host_runner_home_when_that_is_set) {
    const Variable home("HOST_RUNNER_HOME", "/somewhere");
    EXPECT_EQ(state_directory().value(), "/somewhere");
}

TEST(StateDirectory, refuses_a_relative_host_runner_home) {
    const Variable home("HOST_RUNNER_HOME", "vms");
    const auto directory = state_directory();
    ASSERT_FALSE(directory);
    EXPECT_EQ(directory.error().code, ErrorCode::invalid_argument);
    EXPECT_THAT(directory.error().message, HasSubstr("'vms'"));
}

TEST(StateDirectory, without_it_follows_the_user) {
    const Variable home("HOST_RUNNER_HOME", nullptr);
    const Variable state("XDG_STATE_HOME", "/x");
    EXPECT_EQ(state_directory().value(),
              ::geteuid() == 0 ? "/var/lib/host-runner" : "/x/host-runner");
}

TEST(Registry, without_a_state_folder_lists_nothing_and_makes_nothing) {
    const StateFolder state;
    EXPECT_THAT(state.registry().list().value(), IsEmpty());
    EXPECT_FALSE(path_exists(state.registry().instances_directory()));
}

TEST(Registry, lists_oldest_first) {
    const StateFolder state;
    auto record = make_record(first_id);
    record.created_ms = 2;
    state.add(record);
    record = make_record(second_id);
    record.created_ms = 1;
    state.add(record);
    const auto list = state.registry().list().value();
    ASSERT_EQ(list.size(), 2U);
    EXPECT_EQ(list[0].record.id, second_id);
}

TEST(Registry, shows_the_recorded_end_of_a_stopped_instance) {
    const StateFolder state;
    auto record = make_record(first_id);
    record.end = End{5, EndReason::stop_requested, ExitCode::success, ""};
    state.add(record);
    const auto list = state.registry().list().value();
    EXPECT_EQ(list.at(0).state, State::stopped);
    EXPECT_EQ(list.at(0).end->reason, EndReason::stop_requested);
}

TEST(Registry, shows_a_failure_as_failed) {
    const StateFolder state;
    auto record = make_record(first_id);
    record.end = End{5, EndReason::guest_panic, ExitCode::guest_panic, ""};
    state.add(record);
    EXPECT_EQ(state.registry().list()->at(0).state, State::failed);
}

TEST(Registry, a_killed_runner_is_seen_by_its_lock_alone) {
    const StateFolder state;
    auto record = make_record(first_id);
    // A pid that exists and is not the runner: a recycled one must not count.
    record.runner = {::getpid(), 1, current_boot_id().value()};
    const auto paths = state.add(record);
    ForkedProcess runner([&] {
        static auto lock = try_lock_file(paths.lock());
        return lock ? 'y' : 'n';
    });
    ASSERT_EQ(runner.result(), 'y');
    EXPECT_EQ(state.registry().list()->at(0).state, State::starting);
    runner.kill();
    const auto instance = state.registry().list()->at(0);
    EXPECT_EQ(instance.state, State::failed);
    EXPECT_EQ(instance.end->reason, EndReason::runner_died);
    EXPECT_EQ(instance.end->exit_code, ExitCode::failure);
    EXPECT_THAT(instance.end->detail, HasSubstr("ended without a word"));
}

TEST(Registry, an_instance_of_an_earlier_boot_died_with_it) {
    const StateFolder state;
    auto record = make_record(first_id);
    record.runner = {1, 1, "of another boot"};
    state.add(record);
    const auto instance = state.registry().list()->at(0);
    EXPECT_EQ(instance.end->reason, EndReason::runner_died);
    EXPECT_THAT(instance.end->detail, HasSubstr("restarted"));
}

TEST(Registry, takes_the_state_from_the_runners_answer) {
    const StateFolder state;
    const auto paths = state.add(make_record(first_id));
    const auto lock = try_lock_file(paths.lock()).value();
    const auto loop = EventLoop::create().value();
    std::string phase;
    const auto server = ControlServer::listen(*loop, paths.control_socket(),
                                              {.status =
                                                   [&] {
                                                       LiveStatus status;
                                                       status.phase = phase;
                                                       return status;
                                                   },
                                               .services = {},
                                               .stop = {}})
                            .value();
    for (const auto& [word, expected] : {std::pair{"booting", State::starting},
                                         {"ready", State::running},
                                         {"stopping", State::stopping},
                                         {"restarting", State::starting}}) {
        phase = word;
        std::thread runner([&] { EXPECT_TRUE(loop->run()); });
        const auto instance = state.registry().list()->at(0);
        loop->post([&] { loop->stop(); });
        runner.join();
        EXPECT_EQ(instance.state, expected) << word;
        ASSERT_TRUE(instance.live) << word;
        EXPECT_EQ(instance.live->phase, word);
        EXPECT_FALSE(instance.end);
    }
}

TEST(Registry, reports_an_unreadable_record_and_lists_the_others) {
    const StateFolder state;
    state.add(make_record(first_id));
    const auto broken = state.add(make_record(second_id));
    ASSERT_TRUE(write_file_atomic(broken.record(), "{"));
    std::vector<std::string> problems;
    const auto list =
        state.registry().list([&](const Error& error) { problems.push_back(error.message); });
    ASSERT_EQ(list->size(), 1U);
    EXPECT_THAT(problems, ElementsAre(HasSubstr(broken.record())));
}

TEST(Registry, does_not_list_other_folders) {
    const StateFolder state;
    for (const auto* name :
         {".new-0123456789ab", ".removing-0123456789ab", "notes", "ABCDEF012345"})
        ASSERT_TRUE(make_directories(join_path(state.registry().instances_directory(), name)));
    EXPECT_THAT(state.registry().list().value(), IsEmpty());
}

TEST(RegistryFind, takes_an_id_a_unique_prefix_or_a_name) {
    const StateFolder state;
    state.add(make_record(first_id, "web"));
    state.add(make_record(second_id));
    const auto registry = state.registry();
    EXPECT_EQ(registry.find(first_id)->record.id, first_id);
    EXPECT_EQ(registry.find("01f")->record.id, second_id);
    EXPECT_EQ(registry.find("web")->record.id, first_id);
}

TEST(RegistryFind, prefers_a_name_to_a_prefix) {
    const StateFolder state;
    state.add(make_record(first_id, "01f"));
    state.add(make_record(second_id));
    EXPECT_EQ(state.registry().find("01f")->record.id, first_id);
}

TEST(RegistryFind, names_the_candidates_of_an_ambiguous_prefix) {
    const StateFolder state;
    state.add(make_record(first_id, "web"));
    state.add(make_record(second_id));
    const auto found = state.registry().find("01");
    ASSERT_FALSE(found);
    EXPECT_EQ(found.error().code, ErrorCode::invalid_argument);
    EXPECT_THAT(found.error().message, HasSubstr("0123456789ab (web), 01ffffffffff"));
}

TEST(RegistryFind, names_what_there_is_when_nothing_fits) {
    const StateFolder state;
    state.add(make_record(first_id));
    for (const auto* reference : {"f", "", "web"}) {
        const auto found = state.registry().find(reference);
        ASSERT_FALSE(found);
        EXPECT_EQ(found.error().code, ErrorCode::not_found);
        EXPECT_THAT(found.error().hint, HasSubstr(first_id));
    }
}

TEST(RegistryRemove, takes_the_whole_folder_of_a_stopped_instance) {
    const StateFolder state;
    const auto paths = state.add(make_record(first_id));
    ASSERT_TRUE(make_directories(paths.app()));
    ASSERT_TRUE(write_file_atomic(paths.data_disk(), "disk"));
    const auto registry = state.registry();
    ASSERT_TRUE(registry.remove(registry.find(first_id).value()));
    EXPECT_THAT(list_directory(registry.instances_directory()).value(), IsEmpty());
}

TEST(RegistryRemove, refuses_one_that_runs) {
    const StateFolder state;
    const auto paths = state.add(make_record(first_id));
    const auto registry = state.registry();
    const auto instance = registry.find(first_id).value();
    const auto lock = try_lock_file(paths.lock()).value();
    const auto removed = registry.remove(instance);
    ASSERT_FALSE(removed);
    EXPECT_EQ(removed.error().code, ErrorCode::wrong_state);
    EXPECT_TRUE(path_exists(paths.record()));
}

TEST(RegistryRemove, never_removes_a_folder_without_our_marker) {
    const StateFolder state;
    const auto paths = state.add(make_record(first_id));
    const auto registry = state.registry();
    const auto instance = registry.find(first_id).value();
    ASSERT_TRUE(remove_file(paths.record()));
    ASSERT_TRUE(write_file_atomic(paths.data_disk(), "precious"));
    EXPECT_EQ(registry.remove(instance).error().code, ErrorCode::wrong_state);
    EXPECT_TRUE(path_exists(paths.data_disk()));
}

TEST(RegistryPrune, keeps_the_newest_the_named_and_the_running) {
    const StateFolder state;
    const auto add = [&](const char* id, std::int64_t created, const char* name = "") {
        auto record = make_record(id, name);
        record.created_ms = created;
        return state.add(record);
    };
    add("000000000001", 1);
    add("000000000002", 2);
    add("000000000003", 3);
    add("000000000004", 0, "named");
    const auto running = add("000000000005", 0);
    const auto lock = try_lock_file(running.lock()).value();
    const auto registry = state.registry();
    EXPECT_THAT(registry.prune(1).value(), ElementsAre("000000000002", "000000000001"));
    std::vector<std::string> left;
    const auto list = registry.list().value();
    for (const auto& instance : list)
        left.push_back(instance.record.id);
    EXPECT_THAT(left,
                testing::UnorderedElementsAre("000000000003", "000000000004", "000000000005"));
}

} // namespace
} // namespace host_runner::instance

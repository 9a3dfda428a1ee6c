// SPDX-License-Identifier: Apache-2.0
#include "host_runner/instance/claims.hpp"

#include <memory>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "fakes/instance_folders.hpp"

namespace host_runner::instance {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using tests::ForkedProcess;
using tests::make_record;
using tests::StateFolder;

spec::PortMapping port(std::uint16_t host_port, const std::string& address = "127.0.0.1") {
    return {spec::Protocol::tcp, address, host_port, 80};
}

/// Takes an instance as a run does; the lock lives as long as the claim.
Result<Claim> claim_one(const Registry& registry, const std::string& name,
                        std::vector<spec::PortMapping> ports = {}, std::uint32_t cid = 0) {
    HR_TRY(auto claims, Claims::begin(registry));
    HR_TRY(auto claim, claims.open(name));
    auto record = make_record(claim.id, name);
    record.ports = std::move(ports);
    record.vsock_cid = cid;
    HR_CHECK(claims.publish(claim, record));
    return claim;
}

std::vector<std::string> folders(const Registry& registry) {
    return list_directory(registry.instances_directory()).value();
}

TEST(Claims, a_new_instance_appears_with_record_and_lock) {
    const StateFolder state;
    const auto registry = state.registry();
    const auto claim = claim_one(registry, "web", {port(8080)});
    ASSERT_TRUE(claim) << claim.error().describe();
    EXPECT_TRUE(is_instance_id(claim->id));
    EXPECT_FALSE(claim->previous);
    EXPECT_THAT(folders(registry), ElementsAre(claim->id));
    EXPECT_TRUE(is_file_locked(registry.paths(claim->id).lock()).value());
    const auto instance = registry.find("web");
    ASSERT_TRUE(instance);
    EXPECT_THAT(instance->record.ports, ElementsAre(port(8080)));
}

TEST(Claims, nothing_is_made_before_publish) {
    const StateFolder state;
    auto claims = Claims::begin(state.registry()).value();
    ASSERT_TRUE(claims.open(""));
    EXPECT_THAT(folders(state.registry()), IsEmpty());
}

TEST(Claims, one_name_runs_once) {
    const StateFolder state;
    const auto first = claim_one(state.registry(), "web").value();
    const auto second = claim_one(state.registry(), "web");
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().code, ErrorCode::already_exists);
    EXPECT_THAT(second.error().message, HasSubstr(first.id));
}

TEST(Claims, a_stopped_instance_of_the_name_is_continued) {
    const StateFolder state;
    const auto first_id = claim_one(state.registry(), "web", {port(8080)})->id;
    const auto second = claim_one(state.registry(), "web");
    ASSERT_TRUE(second) << second.error().describe();
    EXPECT_EQ(second->id, first_id);
    ASSERT_TRUE(second->previous);
    EXPECT_THAT(second->previous->ports, ElementsAre(port(8080)));
}

TEST(Claims, a_port_of_a_live_instance_is_refused_and_its_owner_named) {
    const StateFolder state;
    const auto first = claim_one(state.registry(), "web", {port(8080)}).value();
    const auto second = claim_one(state.registry(), "", {port(8080, "0.0.0.0")});
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().code, ErrorCode::already_exists);
    EXPECT_THAT(second.error().message, HasSubstr("web (" + first.id + ")"));
    EXPECT_THAT(folders(state.registry()), ElementsAre(first.id));
}

TEST(Claims, a_port_of_a_stopped_instance_is_free) {
    const StateFolder state;
    ASSERT_TRUE(claim_one(state.registry(), "web", {port(8080)}));
    EXPECT_TRUE(claim_one(state.registry(), "", {port(8080)}));
}

TEST(Claims, port_owner_tells_before_anything_is_written) {
    const StateFolder state;
    const auto first = claim_one(state.registry(), "", {port(8080)}).value();
    const auto claims = Claims::begin(state.registry()).value();
    EXPECT_EQ(claims.port_owner(port(8080)), first.id);
    EXPECT_EQ(claims.port_owner(port(8080), first.id), std::nullopt);
    EXPECT_EQ(claims.port_owner(port(8081)), std::nullopt);
}

TEST(Claims, two_equal_ports_of_one_instance_are_refused) {
    const StateFolder state;
    const auto claim = claim_one(state.registry(), "", {port(8080), port(8080)});
    ASSERT_FALSE(claim);
    EXPECT_EQ(claim.error().code, ErrorCode::invalid_argument);
}

TEST(Claims, a_gpu_of_a_live_instance_is_refused_and_its_owner_named) {
    const StateFolder state;
    const auto gpus = spec::parse_pci_addresses("18:00.0,2a:00.0").value();
    const auto claim_gpu = [&](const spec::PciAddress& address) {
        auto claims = Claims::begin(state.registry()).value();
        auto claim = claims.open("").value();
        auto record = make_record(claim.id);
        record.gpus = {address};
        return claims.publish(claim, record).map([&] { return std::move(claim); });
    };
    const auto first = claim_gpu(gpus[0]);
    ASSERT_TRUE(first) << first.error().describe();
    const auto second = claim_gpu(gpus[0]);
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().code, ErrorCode::already_exists);
    EXPECT_EQ(second.error().message, "GPU 0000:18:00.0 is taken by instance " + first->id);
    EXPECT_TRUE(claim_gpu(gpus[1]));
}

TEST(Claims, a_cid_of_a_live_instance_is_refused) {
    const StateFolder state;
    const auto first = claim_one(state.registry(), "", {}, 1000).value();
    const auto second = claim_one(state.registry(), "", {}, 1000);
    ASSERT_FALSE(second);
    EXPECT_THAT(second.error().message, HasSubstr("1000"));
}

TEST(Claims, a_live_instance_may_change_its_own_ports) {
    const StateFolder state;
    auto claim = claim_one(state.registry(), "", {port(8080)}).value();
    auto claims = Claims::begin(state.registry()).value();
    auto record = make_record(claim.id);
    record.ports = {port(8080), port(8081)};
    ASSERT_TRUE(claims.publish(claim, record));
    EXPECT_THAT(state.registry().find(claim.id)->record.ports, ElementsAre(port(8080), port(8081)));
}

TEST(Claims, withdraw_takes_a_new_folder_away) {
    const StateFolder state;
    auto claim = claim_one(state.registry(), "web").value();
    auto claims = Claims::begin(state.registry()).value();
    ASSERT_TRUE(claims.withdraw(std::move(claim)));
    EXPECT_THAT(folders(state.registry()), IsEmpty());
}

TEST(Claims, withdraw_gives_a_continued_instance_its_last_record_back) {
    const StateFolder state;
    const auto id = claim_one(state.registry(), "web", {port(8080)})->id;
    auto claim = claim_one(state.registry(), "web", {port(9090)}).value();
    {
        auto claims = Claims::begin(state.registry()).value();
        ASSERT_TRUE(claims.withdraw(std::move(claim)));
    }
    const auto instance = state.registry().find(id);
    ASSERT_TRUE(instance);
    EXPECT_THAT(instance->record.ports, ElementsAre(port(8080)));
    EXPECT_NE(instance->state, State::starting);
}

TEST(Claims, leftovers_of_killed_commands_are_removed) {
    const StateFolder state;
    const auto registry = state.registry();
    const auto leftover = [&](const std::string& name, const std::string& file) {
        const auto folder = join_path(registry.instances_directory(), name);
        ASSERT_TRUE(make_directories(folder));
        if (!file.empty()) {
            ASSERT_TRUE(write_file_atomic(join_path(folder, file), ""));
        }
    };
    leftover(".new-000000000001", "");
    leftover(".new-000000000002", "instance.json");
    leftover(".removing-000000000003", "instance.json");
    ASSERT_TRUE(Claims::begin(registry));
    EXPECT_THAT(folders(registry), IsEmpty());
}

TEST(Claims, of_many_processes_exactly_one_gets_the_port) {
    const StateFolder state;
    std::vector<std::unique_ptr<ForkedProcess>> runs;
    int winners = 0;
    for (int i = 0; i < 8; ++i) {
        runs.push_back(std::make_unique<ForkedProcess>([&] {
            static auto claim = claim_one(state.registry(), "", {port(8080)});
            return claim ? 'y' : 'n';
        }));
        winners += runs.back()->result() == 'y' ? 1 : 0;
    }
    EXPECT_EQ(winners, 1);
    EXPECT_EQ(folders(state.registry()).size(), 1U);
}

TEST(Claims, of_processes_at_the_same_time_exactly_one_gets_the_name) {
    const StateFolder state;
    // The children race; each answers by its exit code while the winner still holds its lock.
    int gate[2];
    int results[2];
    ASSERT_EQ(::pipe(gate), 0);
    ASSERT_EQ(::pipe(results), 0);
    std::vector<pid_t> children;
    for (int i = 0; i < 8; ++i) {
        const pid_t child = ::fork();
        ASSERT_GE(child, 0);
        if (child == 0) {
            ::prctl(PR_SET_PDEATHSIG, SIGKILL);
            ::close(gate[1]);
            char unused = 0;
            // The end of the file opens the gate for all at once.
            if (::read(gate[0], &unused, 1) != 0)
                ::_exit(2);
            const auto claim = claim_one(state.registry(), "web");
            const char result = claim ? 'y' : 'n';
            if (::write(results[1], &result, 1) != 1)
                ::_exit(3);
            for (;;)
                ::pause();
        }
        children.push_back(child);
    }
    ::close(gate[0]);
    ::close(gate[1]);
    ::close(results[1]);
    std::string answers(children.size(), '?');
    for (auto& answer : answers)
        ASSERT_EQ(::read(results[0], &answer, 1), 1);
    for (const pid_t child : children) {
        ::kill(child, SIGKILL);
        ::waitpid(child, nullptr, 0);
    }
    ::close(results[0]);
    EXPECT_EQ(std::count(answers.begin(), answers.end(), 'y'), 1) << answers;
}

TEST(Claims, wait_for_a_process_that_holds_them_and_go_on_when_it_is_killed) {
    const StateFolder state;
    ForkedProcess holder([&] {
        static auto claims = Claims::begin(state.registry());
        return claims ? 'y' : 'n';
    });
    ASSERT_EQ(holder.result(), 'y');
    EXPECT_TRUE(is_file_locked(
                    join_path(parent_path(state.registry().instances_directory()), "claims.lock"))
                    .value());
    holder.kill();
    EXPECT_TRUE(Claims::begin(state.registry()));
}

} // namespace
} // namespace host_runner::instance

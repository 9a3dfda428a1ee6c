// SPDX-License-Identifier: Apache-2.0
#include "host_runner/instance/stop_ladder.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "host_runner/base/units.hpp"

namespace host_runner::instance {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;

std::vector<StopStepKind> kinds(const std::vector<LadderStep>& ladder) {
    std::vector<StopStepKind> result;
    for (const auto& step : ladder)
        result.push_back(step.kind);
    return result;
}

TEST(StopLadder, goes_from_the_guest_to_sigkill) {
    EXPECT_THAT(kinds(plan_stop_ladder({})),
                ElementsAre(StopStepKind::guest_shutdown, StopStepKind::system_powerdown,
                            StopStepKind::qmp_quit, StopStepKind::terminate, StopStepKind::kill));
}

TEST(StopLadder, does_not_ask_a_guest_that_never_came_up) {
    StopLadderInput input;
    input.guest_is_up = false;
    EXPECT_THAT(kinds(plan_stop_ladder(input)),
                ElementsAre(StopStepKind::qmp_quit, StopStepKind::terminate, StopStepKind::kill));
}

TEST(StopLadder, leaves_out_quit_where_qmp_is_somebody_elses) {
    StopLadderInput input;
    input.has_qmp = false;
    EXPECT_THAT(kinds(plan_stop_ladder(input)),
                ElementsAre(StopStepKind::guest_shutdown, StopStepKind::system_powerdown,
                            StopStepKind::terminate, StopStepKind::kill));
}

TEST(StopLadder, presses_the_power_button_first_without_a_guest_api) {
    StopLadderInput input;
    input.has_guest_api = false;
    EXPECT_EQ(plan_stop_ladder(input).front().kind, StopStepKind::system_powerdown);
}

TEST(StopLadder, gives_every_step_more_time_with_more_memory) {
    StopLadderInput small;
    small.memory_bytes = 1 * gib;
    StopLadderInput large;
    large.memory_bytes = 512 * gib;
    const auto a = plan_stop_ladder(small);
    const auto b = plan_stop_ladder(large);
    ASSERT_EQ(a.size(), b.size());
    for (std::size_t i = 0; i < a.size(); ++i)
        EXPECT_LT(a[i].limit, b[i].limit) << to_string(a[i].kind);
}

TEST(StopLadder, states_the_documented_limits_for_32_gib) {
    StopLadderInput input;
    input.memory_bytes = 32 * gib;
    std::vector<std::chrono::milliseconds> limits;
    for (const auto& step : plan_stop_ladder(input))
        limits.push_back(step.limit);
    EXPECT_THAT(limits, ElementsAre(46s, 23s, 26s, 21s, 26s));
}

TEST(StopLadder, reaches_sigkill_within_the_cap) {
    StopLadderInput input;
    input.memory_bytes = 32 * gib;
    input.total = 10s;
    auto ladder = plan_stop_ladder(input);
    EXPECT_EQ(ladder.back().limit, 26s);
    ladder.pop_back();
    EXPECT_LE(total_limit(ladder), 10s);
    EXPECT_GT(total_limit(ladder), 9900ms);
    EXPECT_GT(ladder.front().limit, ladder.back().limit) << "the proportions stay";
}

TEST(StopLadder, is_not_stretched_by_a_cap_above_its_sum) {
    StopLadderInput input;
    input.memory_bytes = 1 * gib;
    const auto without = total_limit(plan_stop_ladder(input));
    input.total = 24h;
    EXPECT_EQ(total_limit(plan_stop_ladder(input)), without);
}

} // namespace
} // namespace host_runner::instance

// SPDX-License-Identifier: Apache-2.0
#include "host_runner/host/affinity.hpp"

#include <thread>

#include <gmock/gmock.h>
#include <numaif.h>
#include <unistd.h>

#include "host_runner/host/numa.hpp"

namespace host_runner::host {
namespace {

using testing::ElementsAre;

int memory_policy() {
    int policy = -1;
    EXPECT_EQ(::get_mempolicy(&policy, nullptr, 0, nullptr, 0), 0);
    return policy;
}

TEST(Affinity, moves_a_thread_and_only_that) {
    const auto before = thread_cpus(0).value();
    std::thread other([&] {
        ASSERT_TRUE(set_thread_cpus(0, {before.back()}));
        EXPECT_THAT(*thread_cpus(0), ElementsAre(before.back()));
        EXPECT_THAT(*thread_cpus(::gettid()), ElementsAre(before.back()));
    });
    other.join();
    EXPECT_EQ(*thread_cpus(0), before);
}

TEST(Affinity, refuses_processors_and_threads_that_are_not_there) {
    EXPECT_EQ(set_thread_cpus(0, {}).error().code, ErrorCode::invalid_argument);
    const auto none = set_thread_cpus(0, {1'000'000});
    ASSERT_FALSE(none);
    EXPECT_EQ(none.error().message, "This host has no processor 1000000");
    EXPECT_FALSE(set_thread_cpus(-1, {0}));
    EXPECT_FALSE(thread_cpus(-1));
}

TEST(ScopedPlacement, is_over_at_its_end) {
    const auto nodes = read_numa_nodes().value();
    if (nodes.empty())
        GTEST_SKIP() << "this kernel has no NUMA support";
    const auto before = thread_cpus(0).value();
    const auto policy = memory_policy();
    {
        const auto placed = ScopedPlacement::enter({before.front()}, {nodes.front().node});
        ASSERT_TRUE(placed) << placed.error().describe();
        EXPECT_THAT(*thread_cpus(0), ElementsAre(before.front()));
        EXPECT_EQ(memory_policy(), MPOL_BIND);
    }
    EXPECT_EQ(*thread_cpus(0), before);
    EXPECT_EQ(memory_policy(), policy);
}

TEST(ScopedPlacement, changes_nothing_where_it_fails) {
    const auto before = thread_cpus(0).value();
    EXPECT_FALSE(ScopedPlacement::enter({before.front()}, {1'000'000}));
    EXPECT_FALSE(ScopedPlacement::enter({1'000'000}, {0}));
    EXPECT_EQ(*thread_cpus(0), before);
    EXPECT_NE(memory_policy(), MPOL_BIND);
}

} // namespace
} // namespace host_runner::host

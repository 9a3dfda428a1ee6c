// SPDX-License-Identifier: Apache-2.0
#include "host_runner/instance/placement.hpp"

#include <gmock/gmock.h>
#include <linux/magic.h>

#include "fakes/host_fixture.hpp"
#include "host_runner/base/units.hpp"

namespace host_runner::instance {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

/// Two nodes of four processors and 64 GiB; the second has more free.
class PlacementTest : public testing::Test {
protected:
    PlacementTest() {
        numa.nodes = {{0, {0, 1, 2, 3}, 64 * gib, 10 * gib}, {1, {4, 5, 6, 7}, 64 * gib, 40 * gib}};
        numa.pools = {
            {0, 2 * mib, 4096, 4096}, {0, gib, 32, 32}, {1, 2 * mib, 0, 0}, {1, gib, 16, 16}};
        numa.mounts = {{gib, "/mnt/1g"}, {2 * mib, "/dev/hugepages"}};
        spec.cpus = 4;
        spec.memory_bytes = 8 * gib;
    }
    [[nodiscard]] Placement placed() const {
        auto placement = plan_placement(spec, numa);
        EXPECT_TRUE(placement) << placement.error().describe();
        return placement.value_or(Placement{});
    }
    [[nodiscard]] Error refused() const {
        auto placement = plan_placement(spec, numa);
        EXPECT_FALSE(placement);
        return placement ? Error{} : placement.error();
    }

    HostNuma numa;
    spec::VmSpec spec;
};

TEST_F(PlacementTest, is_anywhere_unless_it_was_asked_for) {
    numa = {};
    const auto placement = placed();
    EXPECT_THAT(placement.host_nodes, IsEmpty());
    EXPECT_FALSE(placement.pinning);
    EXPECT_THAT(placement.hugepage_mount, IsEmpty());
}

TEST_F(PlacementTest, pins_to_the_node_with_the_most_free_memory) {
    spec.pin_numa = true;
    const auto placement = placed();
    EXPECT_THAT(placement.host_nodes, ElementsAre(1));
    ASSERT_TRUE(placement.pinning);
    EXPECT_THAT(placement.pinning->others, ElementsAre(4, 5, 6, 7));
    EXPECT_THAT(placement.pinning->memory_nodes, ElementsAre(1));
    EXPECT_EQ(placement.pinning->vcpus, std::vector<std::vector<std::uint32_t>>(4, {4, 5, 6, 7}));
    EXPECT_THAT(placement.guest_nodes, IsEmpty()) << "the guest has one node, as ever";
    EXPECT_EQ(describe(placement), "Memory on NUMA node 1; the VM runs on processors 4-7");
}

TEST_F(PlacementTest, follows_the_gpus_and_the_option_before_them) {
    spec.pin_numa = true;
    numa.gpu_nodes = {0, 0};
    EXPECT_THAT(placed().host_nodes, ElementsAre(0));
    spec.numa_node = 1;
    EXPECT_THAT(placed().host_nodes, ElementsAre(1));
    EXPECT_THAT(placed().warnings, ElementsAre("--numa-node 1 is far from a GPU on node 0"));
    spec.numa_node = 2;
    EXPECT_EQ(refused().message, "--numa-node 2: this host has no such node");
}

TEST_F(PlacementTest, of_gpus_on_two_nodes_does_not_depend_on_their_order) {
    spec.hugepages = spec.pin_numa = true;
    numa.gpu_nodes = {1, 0, 1};
    const auto placement = placed();
    EXPECT_THAT(placement.host_nodes, ElementsAre(0, 1));
    ASSERT_EQ(placement.guest_nodes.size(), 2U);
    EXPECT_EQ(placement.guest_nodes[0].host_node, 0U);
    EXPECT_EQ(placement.guest_nodes[0].last_cpu, 1U);
    EXPECT_EQ(placement.guest_nodes[1].first_cpu, 2U);
    EXPECT_EQ(placement.guest_nodes[1].last_cpu, 3U);
    EXPECT_EQ(placement.guest_nodes[1].memory_bytes, 4 * gib);
    EXPECT_THAT(placement.pinning->vcpus[0], ElementsAre(0, 1, 2, 3));
    EXPECT_THAT(placement.pinning->vcpus[3], ElementsAre(4, 5, 6, 7));
    EXPECT_EQ(placement.pinning->others.size(), 8U);
}

TEST_F(PlacementTest, refuses_what_does_not_divide_by_the_nodes) {
    spec.hugepages = true;
    numa.gpu_nodes = {0, 1};
    spec.cpus = 3;
    EXPECT_THAT(refused().message, HasSubstr("--cpus 3 does not divide by the 2 NUMA nodes"));
    spec.cpus = 4;
    spec.memory_bytes = 8 * gib + mib;
    EXPECT_THAT(refused().message, HasSubstr("--memory 8193M does not divide by the 2"));
}

TEST_F(PlacementTest, takes_large_pages_where_there_are_enough_and_small_ones_else) {
    spec.hugepages = true;
    auto placement = placed();
    EXPECT_EQ(placement.page_bytes, gib);
    EXPECT_THAT(placement.host_nodes, ElementsAre(0)) << "it has the most pages of 1 GiB";
    EXPECT_EQ(placement.hugepage_mount, "/mnt/1g");
    EXPECT_FALSE(placement.pinning);
    EXPECT_EQ(describe(placement), "Memory on NUMA node 0, in pages of 1G");
    spec.memory_bytes = 3 * gib / 2;
    placement = placed();
    EXPECT_EQ(placement.page_bytes, 2 * mib);
    EXPECT_EQ(placement.hugepage_mount, "/dev/hugepages");
    spec.hugepage_bytes = gib;
    EXPECT_THAT(refused().message, HasSubstr("1536M is no multiple of a page of 1G"));
}

TEST_F(PlacementTest, names_both_numbers_where_pages_are_short) {
    spec.hugepages = true;
    spec.hugepage_bytes = gib;
    spec.memory_bytes = 40 * gib;
    const auto error = refused();
    EXPECT_EQ(error.code, ErrorCode::resource_exhausted);
    EXPECT_EQ(error.message, "NUMA node 0 has 32 free pages of 1G, and the VM needs 40");
    EXPECT_THAT(error.hint, HasSubstr("node0/hugepages/hugepages-1048576kB/nr_hugepages"));
    spec.hugepage_bytes = 0;
    EXPECT_EQ(refused().message, "NUMA node 0 has 32 free pages of 1G, and the VM needs 40; NUMA "
                                 "node 0 has 4096 free pages of 2M, and the VM needs 20480");
}

TEST_F(PlacementTest, needs_a_hugetlbfs) {
    spec.hugepages = true;
    numa.mounts.clear();
    EXPECT_EQ(refused().code, ErrorCode::unsupported);
    EXPECT_THAT(refused().message, HasSubstr("No hugetlbfs"));
}

TEST_F(PlacementTest, refuses_more_memory_than_the_node_has_and_warns_of_more_than_is_free) {
    spec.pin_numa = true;
    spec.memory_bytes = 100 * gib;
    EXPECT_EQ(refused().message,
              "NUMA node 1 has 64.0 GiB of memory in all, and the VM needs 100G");
    spec.memory_bytes = 50 * gib;
    EXPECT_THAT(placed().warnings,
                ElementsAre("The VM may use 50G of NUMA node 1, where 40.0 GiB are free"));
}

TEST_F(PlacementTest, needs_processors_to_pin_to) {
    spec.pin_numa = true;
    numa.nodes[1].cpus.clear();
    EXPECT_THAT(placed().host_nodes, ElementsAre(0));
    spec.numa_node = 1;
    EXPECT_THAT(refused().message, HasSubstr("NUMA node 1 has no processors"));
    spec.numa_node.reset();
    spec.cpus = 6;
    EXPECT_THAT(placed().warnings,
                ElementsAre("--cpus 6 is more than the 4 processors of NUMA node 0"));
}

TEST_F(PlacementTest, needs_a_kernel_with_numa) {
    spec.pin_numa = true;
    numa.nodes.clear();
    EXPECT_EQ(refused().code, ErrorCode::unsupported);
}

TEST_F(PlacementTest, looks_at_the_host_only_where_it_was_asked_for) {
    const host::HostRoot nowhere{"/no/such/root"};
    EXPECT_TRUE(read_host_numa(spec, nowhere)->nodes.empty());
    tests::HostFixture host;
    host.write("/sys/devices/system/node/online", "0\n")
        .write("/sys/devices/system/node/node0/cpulist", "0\n")
        .write("/sys/devices/system/node/node0/meminfo",
               "Node 0 MemTotal: 1024 kB\nNode 0 MemFree: 1024 kB\n")
        .write("/proc/self/mounts", "none /dev/hugepages hugetlbfs rw,pagesize=2M 0 0\n");
    spec.hugepages = true;
    const auto seen = read_host_numa(
        spec, host.root(), [](const std::string&) -> Result<long> { return HUGETLBFS_MAGIC; });
    ASSERT_TRUE(seen) << seen.error().describe();
    EXPECT_EQ(seen->nodes.size(), 1U);
    ASSERT_EQ(seen->mounts.size(), 1U);
    EXPECT_EQ(seen->mounts[0].path, "/dev/hugepages");
}

} // namespace
} // namespace host_runner::instance

// SPDX-License-Identifier: Apache-2.0
#include "host_runner/host/numa.hpp"

#include <gmock/gmock.h>

#include "fakes/host_fixture.hpp"
#include "host_runner/base/units.hpp"

namespace host_runner::host {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using tests::HostFixture;

TEST(NumberList, is_read_as_the_kernel_writes_it) {
    EXPECT_THAT(*parse_number_list("0\n"), ElementsAre(0));
    EXPECT_THAT(*parse_number_list("0-2,5,8-9\n"), ElementsAre(0, 1, 2, 5, 8, 9));
    EXPECT_THAT(*parse_number_list("\n"), IsEmpty()); // of a node with memory only
}

TEST(NumberList, is_written_as_the_kernel_writes_it) {
    for (const auto* text : {"", "7", "0-2", "0-2,5,8-9", "0,2,4"})
        EXPECT_EQ(format_number_list(*parse_number_list(text)), text);
}

TEST(NumberList, refuses_what_no_kernel_writes) {
    for (const auto* text : {"a", "1-", "-1", "3-1", "1,1", "2,1", "1,,2", "1;2", "1,",
                             "0-4294967295", "4294967296", " 1"})
        EXPECT_EQ(parse_number_list(text).error().code, ErrorCode::corrupt_data) << text;
}

TEST(NumaNodes, have_their_processors_and_memory) {
    HostFixture host;
    host.write("/sys/devices/system/node/online", "0,2\n")
        .write("/sys/devices/system/node/node0/cpulist", "0-1\n")
        .write("/sys/devices/system/node/node0/meminfo",
               "Node 0 MemTotal:       1048576 kB\nNode 0 MemFree:         524288 kB\n")
        .write("/sys/devices/system/node/node2/cpulist", "\n")
        .write("/sys/devices/system/node/node2/meminfo",
               "Node 2 MemTotal:       2097152 kB\nNode 2 MemFree:              0 kB\n");
    const auto nodes = read_numa_nodes(host.root());
    ASSERT_TRUE(nodes) << nodes.error().describe();
    ASSERT_EQ(nodes->size(), 2U);
    EXPECT_EQ((*nodes)[0].node, 0U);
    EXPECT_THAT((*nodes)[0].cpus, ElementsAre(0, 1));
    EXPECT_EQ((*nodes)[0].total_bytes, gib);
    EXPECT_EQ((*nodes)[0].free_bytes, 512 * mib);
    EXPECT_EQ((*nodes)[1].node, 2U);
    EXPECT_THAT((*nodes)[1].cpus, IsEmpty());
    EXPECT_EQ((*nodes)[1].free_bytes, 0U);
}

TEST(NumaNodes, are_none_without_support_in_the_kernel) {
    EXPECT_THAT(*read_numa_nodes(HostFixture().root()), IsEmpty());
}

TEST(NumaNodes, of_a_kernel_that_says_nonsense_are_an_error) {
    HostFixture host;
    host.write("/sys/devices/system/node/online", "0\n")
        .write("/sys/devices/system/node/node0/cpulist", "0-1\n")
        .write("/sys/devices/system/node/node0/meminfo", "Node 0 MemTotal: lots\n");
    EXPECT_EQ(read_numa_nodes(host.root()).error().code, ErrorCode::corrupt_data);
}

TEST(NumaNodes, of_this_machine_can_be_read) {
    EXPECT_TRUE(read_numa_nodes());
}

} // namespace
} // namespace host_runner::host

// SPDX-License-Identifier: Apache-2.0
#include "host_runner/host/hugepages.hpp"

#include <gmock/gmock.h>
#include <linux/magic.h>

#include "fakes/host_fixture.hpp"
#include "host_runner/base/units.hpp"

namespace host_runner::host {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using tests::HostFixture;

void add_node(HostFixture& host, int node) {
    const auto folder = "/sys/devices/system/node/node" + std::to_string(node);
    const auto prefix = "Node " + std::to_string(node);
    host.write(folder + "/cpulist", "\n")
        .write(folder + "/meminfo", prefix + " MemTotal: 1 kB\n" + prefix + " MemFree: 1 kB\n");
}

void add_pool(HostFixture& host, const std::string& folder, const char* total, const char* free) {
    host.write(folder + "/nr_hugepages", total).write(folder + "/free_hugepages", free);
}

FileSystemType always(long type) {
    return [type](const std::string&) -> Result<long> {
        return type;
    };
}

TEST(HugepagePools, are_those_of_every_node_and_size) {
    HostFixture host;
    host.write("/sys/devices/system/node/online", "0-1\n");
    add_node(host, 0);
    add_node(host, 1);
    const std::string nodes = "/sys/devices/system/node/node";
    add_pool(host, nodes + "1/hugepages/hugepages-2048kB", "10\n", "4\n");
    add_pool(host, nodes + "0/hugepages/hugepages-2048kB", "0\n", "0\n");
    add_pool(host, nodes + "0/hugepages/hugepages-1048576kB", "64\n", "63\n");
    host.write(nodes + "0/hugepages/hugepages-odd/nr_hugepages", "1\n");
    EXPECT_THAT(*read_hugepage_pools(host.root()),
                ElementsAre(HugepagePool{0, 2 * mib, 0, 0}, HugepagePool{0, gib, 64, 63},
                            HugepagePool{1, 2 * mib, 10, 4}));
}

TEST(HugepagePools, of_a_kernel_without_numa_count_as_node_0) {
    HostFixture host;
    add_pool(host, "/sys/kernel/mm/hugepages/hugepages-2048kB", "7\n", "7\n");
    EXPECT_THAT(*read_hugepage_pools(host.root()), ElementsAre(HugepagePool{0, 2 * mib, 7, 7}));
    EXPECT_THAT(*read_hugepage_pools(HostFixture().root()), IsEmpty());
}

TEST(HugepagePools, of_a_kernel_that_says_nonsense_are_an_error) {
    HostFixture host;
    add_pool(host, "/sys/kernel/mm/hugepages/hugepages-2048kB", "many\n", "7\n");
    EXPECT_EQ(read_hugepage_pools(host.root()).error().code, ErrorCode::corrupt_data);
}

TEST(HugepageMount, is_the_one_with_pages_of_that_size) {
    HostFixture host;
    host.write("/proc/self/mounts",
               "tmpfs /dev/shm tmpfs rw 0 0\n"
               "hugetlbfs /dev/hugepages hugetlbfs rw,relatime,pagesize=2M 0 0\n"
               "none /mnt/huge\\040pages hugetlbfs rw,relatime,pagesize=1024M 0 0\n");
    const auto type = always(HUGETLBFS_MAGIC);
    EXPECT_EQ(*find_hugepage_mount(2 * mib, host.root(), type), "/dev/hugepages");
    EXPECT_EQ(*find_hugepage_mount(gib, host.root(), type), "/mnt/huge pages");
}

TEST(HugepageMount, that_is_missing_is_an_error_with_the_command) {
    HostFixture host;
    host.write("/proc/self/mounts", "hugetlbfs /dev/hugepages hugetlbfs rw,pagesize=2M 0 0\n");
    const auto mount = find_hugepage_mount(gib, host.root(), always(HUGETLBFS_MAGIC));
    ASSERT_FALSE(mount);
    EXPECT_EQ(mount.error().message, "No hugetlbfs with pages of 1G is mounted");
    EXPECT_THAT(mount.error().hint, HasSubstr("-o pagesize=1G none /dev/hugepages"));
}

TEST(HugepageMount, that_is_hidden_by_another_file_system_is_refused) {
    HostFixture host;
    host.write("/proc/self/mounts", "hugetlbfs /dev/hugepages hugetlbfs rw,pagesize=2M 0 0\n");
    const auto mount = find_hugepage_mount(2 * mib, host.root(), always(TMPFS_MAGIC));
    ASSERT_FALSE(mount);
    EXPECT_THAT(mount.error().message, HasSubstr("is no hugetlbfs"));
}

TEST(Hugetlbfs, is_known_by_its_magic) {
    const auto plain = check_hugetlbfs("/tmp");
    ASSERT_FALSE(plain);
    EXPECT_EQ(plain.error().code, ErrorCode::unsupported);
    EXPECT_EQ(plain.error().hint, "mount -t hugetlbfs none /tmp");
    EXPECT_EQ(check_hugetlbfs("/no/such/folder").error().code, ErrorCode::not_found);
    EXPECT_TRUE(check_hugetlbfs("/x", always(HUGETLBFS_MAGIC)));
}

} // namespace
} // namespace host_runner::host

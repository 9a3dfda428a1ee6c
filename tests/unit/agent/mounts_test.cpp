// SPDX-License-Identifier: Apache-2.0
#include "host_runner/agent/mounts.hpp"

#include <gmock/gmock.h>

#include "fakes/fake_mounter.hpp"

namespace host_runner::agent {
namespace {

using testing::ElementsAre;

TEST(Mountinfo, reads_target_type_and_source_past_the_optional_fields) {
    const auto mounted = parse_mountinfo(
        "22 1 0:21 / / rw - overlay overlay rw\n"
        "36 22 254:16 / /data rw,nosuid shared:1 master:2 - ext4 /dev/vdb rw,errors=remount-ro\n");
    ASSERT_EQ(mounted.size(), 2U);
    EXPECT_EQ(mounted[1].target, "/data");
    EXPECT_EQ(mounted[1].type, "ext4");
    EXPECT_EQ(mounted[1].source, "/dev/vdb");
}

TEST(Mountinfo, undoes_octal_escapes) {
    const auto mounted = parse_mountinfo("1 1 0:1 / /a\\040b\\134c rw - tmpfs none rw");
    ASSERT_EQ(mounted.size(), 1U);
    EXPECT_EQ(mounted[0].target, "/a b\\c");
}

TEST(Mountinfo, skips_lines_of_another_form) {
    EXPECT_TRUE(parse_mountinfo("\n - \n1 2 3 - ext4\nnonsense\n").empty());
}

TEST(UnmountDisks, unmounts_block_devices_last_first_and_not_the_root) {
    tests::FakeMounter mounter;
    const auto problems = unmount_disks(mounter, {{"/", "squashfs", "/dev/dm-0"},
                                                  {"/run", "tmpfs", "tmpfs"},
                                                  {"/data", "ext4", "/dev/vdb"},
                                                  {"/data/inner", "ext4", "/dev/vdd"}});
    EXPECT_TRUE(problems.empty());
    EXPECT_THAT(mounter.unmounted, ElementsAre("/data/inner", "/data"));
}

TEST(UnmountDisks, goes_on_after_a_failure_and_tells_it) {
    tests::FakeMounter mounter;
    mounter.failing_target = "/busy";
    const auto problems =
        unmount_disks(mounter, {{"/data", "ext4", "/dev/vdb"}, {"/busy", "ext4", "/dev/vdc"}});
    EXPECT_THAT(problems, ElementsAre(testing::HasSubstr("/busy")));
    EXPECT_THAT(mounter.unmounted, ElementsAre("/data"));
}

} // namespace
} // namespace host_runner::agent

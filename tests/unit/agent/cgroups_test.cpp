// SPDX-License-Identifier: Apache-2.0
#include "host_runner/agent/cgroups.hpp"

#include <gmock/gmock.h>

#include "fakes/temporary_directory.hpp"
#include "host_runner/base/files.hpp"

namespace host_runner::agent {
namespace {

/// The kernel's control files as plain files.
class CgroupsTest : public testing::Test {
protected:
    void SetUp() override {
        put("cgroup.subtree_control");
        ASSERT_TRUE(make_directories(folder / "service-web"));
        for (const auto* name : {"memory.max", "memory.oom.group", "pids.max", "cgroup.kill"})
            put(std::string("service-web/") + name);
    }
    void put(const std::string& name) {
        ASSERT_TRUE(write_file_atomic(folder / name, ""));
    }
    [[nodiscard]] std::string get(const std::string& name) const {
        return read_file(folder / name, 100).value_or("?");
    }
    tests::TemporaryDirectory folder;
};

TEST_F(CgroupsTest, hands_memory_and_pids_to_the_children) {
    ASSERT_TRUE(Cgroups::create(folder.path()));
    EXPECT_EQ(get("cgroup.subtree_control"), "+memory +pids");
}

TEST_F(CgroupsTest, writes_the_limits) {
    const auto cgroups = Cgroups::create(folder.path());
    const auto path = cgroups->prepare("web", {.memory_bytes = 1048576, .processes = 20});
    ASSERT_TRUE(path);
    EXPECT_EQ(*path, folder / "service-web");
    EXPECT_EQ(get("service-web/memory.max"), "1048576");
    EXPECT_EQ(get("service-web/memory.oom.group"), "1");
    EXPECT_EQ(get("service-web/pids.max"), "20");
}

TEST_F(CgroupsTest, leaves_what_has_no_limit_unlimited) {
    ASSERT_TRUE(Cgroups::create(folder.path())->prepare("web", {}));
    EXPECT_EQ(get("service-web/memory.max"), "max");
    EXPECT_EQ(get("service-web/pids.max"), "max");
}

TEST_F(CgroupsTest, kills_through_the_kernel) {
    ASSERT_TRUE(Cgroups::kill_all(folder / "service-web"));
    EXPECT_EQ(get("service-web/cgroup.kill"), "1");
}

TEST(CgroupsWithoutKernel, are_unsupported_and_name_the_file) {
    const tests::TemporaryDirectory folder;
    const auto cgroups = Cgroups::create(folder.path());
    ASSERT_FALSE(cgroups);
    EXPECT_EQ(cgroups.error().code, ErrorCode::unsupported);
    EXPECT_THAT(cgroups.error().message, testing::HasSubstr("cgroup.subtree_control"));
}

} // namespace
} // namespace host_runner::agent

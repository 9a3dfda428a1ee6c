// SPDX-License-Identifier: Apache-2.0
#include "host_runner/agent/system_info.hpp"

#include <gmock/gmock.h>

#include "fakes/temporary_directory.hpp"
#include "host_runner/base/files.hpp"

namespace host_runner::agent {
namespace {

class SystemInfoTest : public testing::Test {
protected:
    void SetUp() override {
        put("etc/os-release", "ID=host-runner\nNAME=\"host_runner guest\"\nVERSION_ID=0.1.0\n");
        put("proc/cpuinfo", "processor\t: 0\nmodel name\t: Fast CPU\n\nprocessor\t: 1\n"
                            "model name\t: Fast CPU\n");
        put("proc/meminfo", "MemTotal:        1000 kB\nMemFree:          300 kB\n"
                            "MemAvailable:     600 kB\nSwapTotal:        50 kB\n"
                            "SwapFree:         20 kB\n");
        put("proc/uptime", "12.75 20.00\n");
        put("proc/loadavg", "0.50 1.25 10.00 1/100 4242\n");
        put("proc/self/mountinfo", "22 1 0:21 / / rw - overlay overlay rw\n");
    }
    void put(const std::string& name, std::string_view text) {
        ASSERT_TRUE(make_directories(parent_path(root / name)));
        ASSERT_TRUE(write_file_atomic(root / name, text));
    }
    tests::TemporaryDirectory root;
};

TEST_F(SystemInfoTest, has_dstacks_units) {
    const auto info = read_system_info(root.path(), {});
    ASSERT_TRUE(info) << info.error().describe();
    EXPECT_EQ(info->os_name, "host_runner guest");
    EXPECT_EQ(info->os_version, "0.1.0");
    EXPECT_EQ(info->cpu_model, "Fast CPU");
    EXPECT_EQ(info->num_cpus, 2U);
    EXPECT_EQ(info->total_memory, 1024000U);
    EXPECT_EQ(info->used_memory, 409600U);
    EXPECT_EQ(info->free_memory, 307200U);
    EXPECT_EQ(info->used_swap, 30720U);
    EXPECT_EQ(info->uptime, 12U);
    EXPECT_EQ(info->loadavg_one, 50U);
    EXPECT_EQ(info->loadavg_five, 125U);
    EXPECT_EQ(info->loadavg_fifteen, 1000U);
}

TEST_F(SystemInfoTest, lists_mounted_disks_only) {
    const auto info = read_system_info(root.path(), {"/", "/data-that-is-not-mounted"});
    ASSERT_TRUE(info);
    ASSERT_EQ(info->disks.size(), 1U);
    EXPECT_EQ(info->disks[0].name, "overlay");
    EXPECT_EQ(info->disks[0].mount_point, "/");
    EXPECT_GT(info->disks[0].total_size, 0U);
}

TEST_F(SystemInfoTest, names_the_figure_that_is_missing) {
    put("proc/meminfo", "MemTotal: 1000 kB\n");
    const auto info = read_system_info(root.path(), {});
    ASSERT_FALSE(info);
    EXPECT_EQ(info.error().code, ErrorCode::corrupt_data);
    EXPECT_THAT(info.error().message, testing::HasSubstr("MemAvailable"));
}

} // namespace
} // namespace host_runner::agent

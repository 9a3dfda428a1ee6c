// SPDX-License-Identifier: Apache-2.0
#include "host_runner/cli/process_usage.hpp"

#include <filesystem>

#include <unistd.h>

#include <gtest/gtest.h>

#include "fakes/temporary_directory.hpp"
#include "host_runner/base/files.hpp"
#include "host_runner/base/units.hpp"

namespace host_runner::cli {
namespace {

/// A procfs with one process, number 7.
class ProcessUsageTest : public testing::Test {
protected:
    void SetUp() override {
        std::filesystem::create_directory(proc_ / "7");
        // Its name holds what could be taken for fields.
        write("stat", "7 (a) R (b) S 1 7 7 0 -1 0 10 0 0 0 250 50 0 0 20 0 1 0 100 0 0\n");
        write("statm", "1000 200 50 1 0 100 0\n");
    }
    void write(const std::string& name, const std::string& text) {
        ASSERT_TRUE(write_file_atomic(proc_ / ("7/" + name), text));
    }
    [[nodiscard]] Result<ProcessUsage> read() const {
        return read_process_usage(7, proc_.path());
    }
    tests::TemporaryDirectory proc_;
};

TEST_F(ProcessUsageTest, counts_user_and_system_time) {
    EXPECT_DOUBLE_EQ(read().value().cpu_seconds,
                     300.0 / static_cast<double>(::sysconf(_SC_CLK_TCK)));
}

TEST_F(ProcessUsageTest, adds_hugepages_to_the_resident_memory) {
    write("smaps_rollup", "00400000-7fff0000 ---p 00000000 00:00 0  [rollup]\nRss:  1000 kB\n"
                          "Pss:  900 kB\nShared_Hugetlb:  0 kB\nPrivate_Hugetlb:  2048 kB\n");
    EXPECT_EQ(read().value().memory_bytes, 3048 * kib);
}

TEST_F(ProcessUsageTest, takes_statm_where_smaps_rollup_may_not_be_read) {
    EXPECT_EQ(read().value().memory_bytes,
              200 * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE)));
}

TEST_F(ProcessUsageTest, says_when_input_and_output_are_not_known) {
    EXPECT_FALSE(read().value().read_bytes.has_value());
    write("io", "rchar: 1\nwchar: 2\nread_bytes: 4096\nwrite_bytes: 8192\n");
    EXPECT_EQ(read().value().read_bytes, 4096U);
    EXPECT_EQ(read().value().written_bytes, 8192U);
}

TEST_F(ProcessUsageTest, refuses_another_form) {
    write("stat", "7 (a) S 1\n");
    EXPECT_EQ(read().error().code, ErrorCode::corrupt_data);
}

TEST_F(ProcessUsageTest, says_when_there_is_no_such_process) {
    EXPECT_EQ(read_process_usage(8, proc_.path()).error().code, ErrorCode::not_found);
}

TEST(ProcessUsage, reads_a_real_process) {
    EXPECT_GT(read_process_usage(::getpid()).value().memory_bytes, mib);
}

} // namespace
} // namespace host_runner::cli

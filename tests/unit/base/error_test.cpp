// SPDX-License-Identifier: Apache-2.0
#include "host_runner/base/error.hpp"

#include <cerrno>
#include <memory>

#include <gtest/gtest.h>

#include "host_runner/base/exit_code.hpp"
#include "host_runner/base/log.hpp"

namespace host_runner {
namespace {

Result<std::unique_ptr<int>> make(bool good) {
    if (!good)
        return fail(ErrorCode::timeout, "Too slow", "wait longer");
    return std::make_unique<int>(7);
}

Result<int> use(bool good) {
    HR_TRY(auto value, make(good));
    HR_CHECK(make(good));
    return *value;
}

TEST(Error, travels_upwards_through_the_macros) {
    EXPECT_EQ(use(true).value(), 7);
    const auto failed = use(false);
    ASSERT_FALSE(failed);
    EXPECT_EQ(failed.error().code, ErrorCode::timeout);
    EXPECT_EQ(failed.error().describe(), "Too slow (wait longer)");
}

TEST(Error, takes_its_code_from_errno) {
    const Result<void> full = fail_errno("Cannot write state", ENOSPC);
    EXPECT_EQ(full.error().code, ErrorCode::resource_exhausted);
    EXPECT_EQ(full.error().message, "Cannot write state: No space left on device");
    EXPECT_EQ(full.error().sys_errno, ENOSPC);
    const Result<void> denied = fail_errno("x", EACCES);
    EXPECT_EQ(denied.error().code, ErrorCode::permission_denied);
}

TEST(ExitCodes, are_dense_and_ascending_so_that_the_table_can_be_indexed) {
    int expected = 0;
    for (const auto& row : exit_code_table()) {
        EXPECT_EQ(static_cast<int>(row.code), expected++);
        EXPECT_FALSE(row.meaning.empty());
    }
    EXPECT_EQ(to_string(ExitCode::stopped_by_force), "stopped_by_force");
}

TEST(LogLevel, knows_its_names_and_says_them_when_it_does_not) {
    EXPECT_EQ(log::parse_level("warn").value(), log::Level::warn);
    const auto bad = log::parse_level("loud");
    ASSERT_FALSE(bad);
    EXPECT_NE(bad.error().hint.find("debug"), std::string::npos);
}

} // namespace
} // namespace host_runner

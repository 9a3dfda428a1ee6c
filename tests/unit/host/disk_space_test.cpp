// SPDX-License-Identifier: Apache-2.0
#include "host_runner/host/disk_space.hpp"

#include <limits>

#include <gmock/gmock.h>

#include "fakes/temporary_directory.hpp"
#include "host_runner/base/units.hpp"

namespace host_runner::host {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Optional;

constexpr auto too_much = std::numeric_limits<std::uint64_t>::max();

TEST(FreeDiskBytes, asks_the_nearest_existing_parent) {
    const tests::TemporaryDirectory folder;
    const auto there = free_disk_bytes(folder.path());
    const auto later = free_disk_bytes(folder / "not/yet/there");
    ASSERT_TRUE(there && later);
    EXPECT_GT(*there, 0U);
    EXPECT_GT(*later, 0U);
}

TEST(FreeDiskBytes, takes_a_relative_path) {
    EXPECT_TRUE(free_disk_bytes("not-there/at-all"));
}

TEST(RequireDiskSpace, passes_what_fits) {
    EXPECT_TRUE(require_disk_space("/tmp", 1, "the share disk"));
}

TEST(RequireDiskSpace, names_purpose_place_and_both_numbers) {
    const auto result = require_disk_space("/tmp", too_much, "the share disk");
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().code, ErrorCode::resource_exhausted);
    EXPECT_THAT(result.error().message,
                AllOf(HasSubstr("the share disk"), HasSubstr("/tmp"), HasSubstr("needed"),
                      HasSubstr(format_size_rounded(too_much)), HasSubstr("free")));
}

TEST(WarnDiskSpace, is_silent_when_it_fits) {
    EXPECT_EQ(warn_disk_space("/tmp", 1, "The data disk").value(), std::nullopt);
}

TEST(WarnDiskSpace, warns_when_a_sparse_file_may_outgrow_the_disk) {
    EXPECT_THAT(warn_disk_space("/tmp", too_much, "The data disk").value(),
                Optional(HasSubstr("The data disk may grow to")));
}

} // namespace
} // namespace host_runner::host

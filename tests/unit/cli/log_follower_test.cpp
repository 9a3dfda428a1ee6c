// SPDX-License-Identifier: Apache-2.0
#include "log_follower.hpp"

#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>

#include "fakes/temporary_directory.hpp"

namespace host_runner::cli {
namespace {

class LogFollowerTest : public testing::Test {
protected:
    void append(const std::string& text) {
        std::ofstream(path_, std::ios::app) << text;
    }
    [[nodiscard]] LogFollower open(std::optional<std::uint32_t> tail = std::nullopt) const {
        return LogFollower::open(path_, tail).value();
    }
    [[nodiscard]] static std::string read(LogFollower& follower) {
        std::string text;
        EXPECT_TRUE(follower.read_new([&](std::string_view bytes) -> Result<void> {
            text += bytes;
            return {};
        }));
        return text;
    }
    tests::TemporaryDirectory directory_;
    std::string path_ = directory_ / "serial.log";
};

TEST_F(LogFollowerTest, reads_what_is_there_and_then_only_what_is_new) {
    append("one\n");
    auto follower = open();
    EXPECT_EQ(read(follower), "one\n");
    EXPECT_EQ(read(follower), "");
    append("two\n");
    EXPECT_EQ(read(follower), "two\n");
}

TEST_F(LogFollowerTest, begins_with_the_last_lines) {
    append("one\ntwo\nthree\n");
    for (const auto& [lines, expected] :
         {std::pair{0U, ""}, {1U, "three\n"}, {2U, "two\nthree\n"}, {9U, "one\ntwo\nthree\n"}}) {
        auto follower = open(lines);
        EXPECT_EQ(read(follower), expected) << lines;
    }
}

TEST_F(LogFollowerTest, counts_a_last_line_without_its_end) {
    append("one\ntwo");
    auto follower = open(1);
    EXPECT_EQ(read(follower), "two");
}

TEST_F(LogFollowerTest, finds_lines_that_are_longer_than_a_block) {
    append("one\n" + std::string(200'000, 'x') + "\n");
    auto follower = open(1);
    EXPECT_EQ(read(follower).size(), 200'001U);
}

TEST_F(LogFollowerTest, begins_anew_when_the_log_was_rotated) {
    append("a long first part\n");
    auto follower = open();
    EXPECT_EQ(read(follower), "a long first part\n");
    std::filesystem::resize_file(path_, 0);
    append("new\n");
    EXPECT_EQ(read(follower), "new\n");
}

TEST_F(LogFollowerTest, says_when_there_is_no_log) {
    EXPECT_EQ(LogFollower::open(path_, std::nullopt).error().code, ErrorCode::not_found);
}

} // namespace
} // namespace host_runner::cli

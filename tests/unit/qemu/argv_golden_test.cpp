// SPDX-License-Identifier: Apache-2.0
#include <fstream>
#include <sstream>

#include <gtest/gtest.h>

#include "argv_case.hpp"
#include "fakes/golden_file.hpp"
#include "fakes/temporary_directory.hpp"
#include "host_runner/base/files.hpp"

namespace host_runner::tests {
namespace {

const std::string golden_folder = HOST_RUNNER_SOURCE_DIR "/tests/golden/argv";

std::vector<std::string> golden_cases() {
    return list_directory(golden_folder).value();
}

class ArgvGolden : public testing::TestWithParam<std::string> {};

TEST_P(ArgvGolden, is_what_the_plan_gives) {
    const auto folder = join_path(golden_folder, GetParam());
    const auto input = load_argv_case(join_path(folder, "options.txt"));
    ASSERT_TRUE(input) << input.error().describe();
    const auto argv = qemu::build_argv(input->plan, input->capabilities);
    ASSERT_TRUE(argv) << argv.error().describe();
    std::string lines;
    for (const auto& word : *argv)
        lines += word + "\n";
    EXPECT_TRUE(matches_golden(join_path(folder, "expected.argv"), lines));
}

INSTANTIATE_TEST_SUITE_P(Case, ArgvGolden, testing::ValuesIn(golden_cases()),
                         [](const auto& tested) { return tested.param; });

// --- the goldens' own rules ---------------------------------------------------------------------

std::string content(const std::string& path) {
    return read_file(path, 1024).value_or("(missing)");
}

TEST(GoldenFile, update_rewrites_an_existing_file) {
    const TemporaryDirectory folder;
    ASSERT_TRUE(write_file_atomic(folder / "expected", "old\n"));
    EXPECT_TRUE(matches_golden(folder / "expected", "new\n", GoldenMode::rewrite));
    EXPECT_EQ(content(folder / "expected"), "new\n");
}

TEST(GoldenFile, update_never_creates_a_first_version) {
    const TemporaryDirectory folder;
    EXPECT_FALSE(matches_golden(folder / "expected", "new\n", GoldenMode::rewrite));
    EXPECT_FALSE(path_exists(folder / "expected"));
}

TEST(GoldenFile, comparing_changes_nothing_and_names_the_line) {
    const TemporaryDirectory folder;
    ASSERT_TRUE(write_file_atomic(folder / "expected", "a\nb\n"));
    const auto result = matches_golden(folder / "expected", "a\nc\n", GoldenMode::compare);
    EXPECT_FALSE(result);
    EXPECT_NE(std::string(result.message()).find("line 2"), std::string::npos) << result.message();
    EXPECT_EQ(content(folder / "expected"), "a\nb\n");
}

TEST(GoldenFile, a_missing_last_line_differs) {
    const TemporaryDirectory folder;
    ASSERT_TRUE(write_file_atomic(folder / "expected", "a\nb\n"));
    EXPECT_FALSE(matches_golden(folder / "expected", "a\n", GoldenMode::compare));
}

TEST(ArgvCase, refuses_a_name_it_does_not_know) {
    const TemporaryDirectory folder;
    ASSERT_TRUE(write_file_atomic(folder / "options.txt", "cpu = 4\n"));
    EXPECT_FALSE(load_argv_case(folder / "options.txt"));
}

} // namespace
} // namespace host_runner::tests

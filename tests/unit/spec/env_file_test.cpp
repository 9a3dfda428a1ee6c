// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "fakes/temporary_directory.hpp"
#include "host_runner/base/files.hpp"
#include "host_runner/spec/compose.hpp"

namespace host_runner::spec {
namespace {

using testing::HasSubstr;
using testing::Pair;
using testing::UnorderedElementsAre;

class EnvFile : public testing::Test {
protected:
    Result<std::map<std::string, std::string>> load(const std::string& text) {
        EXPECT_TRUE(write_file_atomic(path_, text));
        return load_env_file(path_);
    }

    const tests::TemporaryDirectory dir_;
    const std::string path_ = dir_ / "values.env";
};

TEST_F(EnvFile, holds_names_and_values) {
    EXPECT_THAT(load("A=1\n# comment\n\n  B = two words \nC=\n").value(),
                UnorderedElementsAre(Pair("A", "1"), Pair("B", "two words"), Pair("C", "")));
}

TEST_F(EnvFile, values_may_be_quoted) {
    EXPECT_THAT(load("A=' x # y '\nB=\"a\\n\\\"b\\\" \\x\" # comment\n").value(),
                UnorderedElementsAre(Pair("A", " x # y "), Pair("B", "a\n\"b\" \\x")));
}

TEST_F(EnvFile, a_comment_needs_a_blank_before_it) {
    EXPECT_THAT(load("A=x#y\nB=x # y\n").value(),
                UnorderedElementsAre(Pair("A", "x#y"), Pair("B", "x")));
}

TEST_F(EnvFile, line_ends_of_windows_are_taken) {
    EXPECT_THAT(load("A=1\r\nB=2\r\n").value(),
                UnorderedElementsAre(Pair("A", "1"), Pair("B", "2")));
}

TEST_F(EnvFile, the_last_value_of_a_name_counts) {
    EXPECT_THAT(load("A=1\nA=2\n").value(), UnorderedElementsAre(Pair("A", "2")));
}

TEST_F(EnvFile, errors_name_file_and_line) {
    for (const auto* bad : {"NAME", "1A=x", "A B=x", "=x", "A='x", "A=\"x\" y", "A=\xff"}) {
        const auto result = load(std::string("OK=1\n") + bad + "\n");
        ASSERT_FALSE(result) << bad;
        EXPECT_EQ(result.error().code, ErrorCode::invalid_argument);
        EXPECT_THAT(result.error().message, HasSubstr("values.env:2: ")) << bad;
    }
}

TEST_F(EnvFile, that_is_missing_is_not_found) {
    EXPECT_EQ(load_env_file(dir_ / "none").error().code, ErrorCode::not_found);
}

} // namespace
} // namespace host_runner::spec

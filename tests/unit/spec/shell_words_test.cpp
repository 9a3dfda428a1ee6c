// SPDX-License-Identifier: Apache-2.0
// The splitting of commands, through the public door: resolve_compose().
#include "host_runner/spec/compose.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace host_runner::spec {
namespace {

using testing::ElementsAre;

std::vector<std::string> words(const std::string& command) {
    // A literal block takes every character as it is.
    const auto compose =
        parse_compose("c.yaml", "services:\n  a:\n    command: |2-\n      " + command + "\n");
    EXPECT_TRUE(compose) << compose.error().describe();
    const auto resolved = resolve_compose(*compose, {});
    if (!resolved)
        return {"error: " + resolved.error().message};
    return resolved->app.services.at(0).command;
}

TEST(ShellWords, blanks_separate_words) {
    EXPECT_THAT(words("a  b\tc "), ElementsAre("a", "b", "c"));
}

TEST(ShellWords, single_quotes_keep_everything) {
    EXPECT_THAT(words(R"(a 'b "c" \d' e)"), ElementsAre("a", R"(b "c" \d)", "e"));
}

TEST(ShellWords, double_quotes_keep_all_but_escaped_characters) {
    EXPECT_THAT(words(R"(a "b \"c\" \\ \d")"), ElementsAre("a", R"(b "c" \ \d)"));
}

TEST(ShellWords, a_backslash_keeps_the_next_character) {
    EXPECT_THAT(words(R"(a\ b \"c)"), ElementsAre("a b", "\"c"));
}

TEST(ShellWords, parts_without_a_blank_between_are_one_word) {
    EXPECT_THAT(words(R"(a'b'"c"d)"), ElementsAre("abcd"));
}

TEST(ShellWords, empty_quotes_are_an_empty_word) {
    EXPECT_THAT(words("a '' \"\""), ElementsAre("a", "", ""));
}

TEST(ShellWords, operators_are_plain_characters) {
    EXPECT_THAT(words("a | b > c"), ElementsAre("a", "|", "b", ">", "c"));
}

TEST(ShellWords, open_quotes_and_a_last_backslash_are_errors) {
    EXPECT_THAT(words("a 'b"), ElementsAre(testing::HasSubstr("open single quote")));
    EXPECT_THAT(words("a \"b"), ElementsAre(testing::HasSubstr("open double quote")));
    EXPECT_THAT(words("a b\\"), ElementsAre(testing::HasSubstr("ends in a backslash")));
}

} // namespace
} // namespace host_runner::spec

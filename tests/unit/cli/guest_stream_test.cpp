// SPDX-License-Identifier: Apache-2.0
#include "guest_stream.hpp"

#include <gmock/gmock.h>

namespace host_runner::cli {
namespace {

using testing::ElementsAre;

TEST(LineSplitter, gives_whole_lines_whatever_the_pieces) {
    LineSplitter splitter;
    std::vector<std::string> lines;
    for (const auto* piece : {"on", "e\ntw", "o\n\nthree"})
        EXPECT_TRUE(splitter.feed(piece, [&](std::string_view line) {
            lines.emplace_back(line);
            return true;
        }));
    EXPECT_THAT(lines, ElementsAre("one", "two", ""));
    EXPECT_EQ(splitter.rest(), "three");
}

TEST(LineSplitter, stops_when_told) {
    LineSplitter splitter;
    int count = 0;
    EXPECT_FALSE(splitter.feed("one\ntwo\n", [&](std::string_view) { return ++count < 1; }));
    EXPECT_EQ(count, 1);
}

TEST(LineSplitter, refuses_a_line_without_end) {
    LineSplitter splitter;
    const std::string piece(600'000, 'x');
    EXPECT_TRUE(splitter.feed(piece, [](std::string_view) { return true; }));
    EXPECT_FALSE(splitter.feed(piece, [](std::string_view) { return true; }));
}

} // namespace
} // namespace host_runner::cli

// SPDX-License-Identifier: Apache-2.0
#include "host_runner/base/units.hpp"

#include <gtest/gtest.h>

namespace host_runner {
namespace {

TEST(ParseSize, takes_every_unit_with_and_without_i_and_b) {
    EXPECT_EQ(parse_size("32G").value(), 32 * gib);
    EXPECT_EQ(parse_size("32g").value(), 32 * gib);
    EXPECT_EQ(parse_size("32GB").value(), 32 * gib);
    EXPECT_EQ(parse_size("32Gi").value(), 32 * gib);
    EXPECT_EQ(parse_size("32GiB").value(), 32 * gib);
    EXPECT_EQ(parse_size("4K").value(), 4 * kib);
    EXPECT_EQ(parse_size("7M").value(), 7 * mib);
    EXPECT_EQ(parse_size("2 TiB").value(), 2 * tib);
    EXPECT_EQ(parse_size("1000B").value(), 1000U);
}

TEST(ParseSize, reads_a_bare_number_as_mib) {
    EXPECT_EQ(parse_size("8192").value(), 8 * gib);
}

TEST(ParseSize, takes_fractions_that_give_whole_bytes) {
    EXPECT_EQ(parse_size("1.5G").value(), 1536 * mib);
    EXPECT_EQ(parse_size("0.25K").value(), 256U);
    EXPECT_FALSE(parse_size("0.3B"));
}

TEST(ParseSize, refuses_what_is_no_size_and_says_how_to_write_one) {
    for (const char* text : {"", "G", "-1", "1X", "1GiX", "1..5G", "1.G", "0", "0G", "12 34", "1e9",
                             "99999999999999999999", "9000000T"}) {
        const auto size = parse_size(text);
        ASSERT_FALSE(size) << text << " gave " << *size;
        EXPECT_EQ(size.error().code, ErrorCode::invalid_argument) << text;
        EXPECT_NE(size.error().hint.find("32G"), std::string::npos) << text;
    }
}

TEST(FormatSize, gives_the_shortest_exact_form_that_parses_back) {
    EXPECT_EQ(format_size(32 * gib), "32G");
    EXPECT_EQ(format_size(1536 * mib), "1536M");
    EXPECT_EQ(format_size(1000), "1000B");
    for (const std::uint64_t bytes :
         {std::uint64_t{1000}, std::uint64_t{4096}, 3 * gib + mib, 5 * tib})
        EXPECT_EQ(parse_size(format_size(bytes)).value(), bytes);
}

TEST(ParseDuration, adds_parts_and_reads_a_bare_number_as_seconds) {
    using namespace std::chrono_literals;
    EXPECT_EQ(parse_duration("90").value(), 90s);
    EXPECT_EQ(parse_duration("250ms").value(), 250ms);
    EXPECT_EQ(parse_duration("1h30m").value(), 90min);
    EXPECT_EQ(parse_duration("0").value(), 0s);
}

TEST(ParseDuration, refuses_other_text) {
    for (const char* text : {"", "s", "5x", "-1", "1h-5m", "400d", "99999999999999999999"})
        EXPECT_FALSE(parse_duration(text)) << text;
}

TEST(FormatDuration, picks_the_precision_a_person_wants) {
    using namespace std::chrono_literals;
    EXPECT_EQ(format_duration(420ms), "0.42 s");
    EXPECT_EQ(format_duration(9994ms), "9.99 s");
    EXPECT_EQ(format_duration(12300ms), "12.3 s");
    EXPECT_EQ(format_duration(59999ms), "59.9 s");
    EXPECT_EQ(format_duration(185s), "3 m 05 s");
    EXPECT_EQ(format_duration(130min), "2 h 10 m");
    EXPECT_EQ(format_duration(98h), "4 d 02 h");
}

} // namespace
} // namespace host_runner

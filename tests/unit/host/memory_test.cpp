// SPDX-License-Identifier: Apache-2.0
#include "host_runner/host/memory.hpp"

#include <gmock/gmock.h>

#include "fakes/host_fixture.hpp"
#include "host_runner/base/units.hpp"

namespace host_runner::host {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Optional;
using tests::HostFixture;

TEST(ReadMemory, reads_total_and_available) {
    HostFixture host;
    host.write("/proc/meminfo", "MemTotal:       16318480 kB\nMemFree:          210224 kB\n"
                                "MemAvailable:   12582912 kB\nBuffers:          1 kB\n");
    const auto memory = read_memory(host.root());
    ASSERT_TRUE(memory) << memory.error().describe();
    EXPECT_EQ(memory->total_bytes, 16318480ULL * 1024);
    EXPECT_EQ(memory->available_bytes, 12 * gib);
}

TEST(ReadMemory, names_a_missing_line) {
    HostFixture host;
    host.write("/proc/meminfo", "MemTotal:       16318480 kB\n");
    const auto memory = read_memory(host.root());
    ASSERT_FALSE(memory);
    EXPECT_EQ(memory.error().code, ErrorCode::corrupt_data);
    EXPECT_THAT(memory.error().message, HasSubstr("MemAvailable"));
}

TEST(ReadMemory, names_a_line_without_number) {
    HostFixture host;
    host.write("/proc/meminfo", "MemTotal: many kB\nMemAvailable: 1 kB\n");
    EXPECT_THAT(read_memory(host.root()).error().message, HasSubstr("MemTotal"));
}

TEST(ReadMemory, works_on_this_machine) {
    const auto memory = read_memory();
    ASSERT_TRUE(memory) << memory.error().describe();
    EXPECT_GT(memory->total_bytes, memory->available_bytes);
    EXPECT_GT(memory->available_bytes, 0U);
}

constexpr Memory machine{16 * gib, 8 * gib};

TEST(AssessMemory, is_silent_when_it_fits) {
    EXPECT_EQ(assess_memory(8 * gib, machine, spec::Tee::none).value(), std::nullopt);
    EXPECT_EQ(assess_memory(8 * gib, machine, spec::Tee::tdx).value(), std::nullopt);
}

TEST(AssessMemory, warns_with_both_numbers_above_what_is_available) {
    for (const auto tee : {spec::Tee::none, spec::Tee::tdx})
        EXPECT_THAT(assess_memory(9 * gib, machine, tee).value(),
                    Optional(AllOf(HasSubstr("9G"), HasSubstr("8.0 GiB"))));
}

TEST(AssessMemory, only_warns_above_the_total_without_tee) {
    EXPECT_TRUE(assess_memory(32 * gib, machine, spec::Tee::none).value());
}

TEST(AssessMemory, refuses_a_td_above_the_total_with_both_numbers) {
    const auto warning = assess_memory(32 * gib, machine, spec::Tee::tdx);
    ASSERT_FALSE(warning);
    EXPECT_EQ(warning.error().code, ErrorCode::resource_exhausted);
    EXPECT_THAT(warning.error().message, AllOf(HasSubstr("32G"), HasSubstr("16.0 GiB")));
}

} // namespace
} // namespace host_runner::host

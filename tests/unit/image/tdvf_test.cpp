// SPDX-License-Identifier: Apache-2.0
#include "host_runner/image/tdvf.hpp"

#include <fstream>

#include <gmock/gmock.h>

#include "fakes/tdvf_firmware.hpp"
#include "fakes/temporary_directory.hpp"

namespace host_runner::image {
namespace {

using testing::HasSubstr;

using tests::other_guid;
using Firmware = tests::TdvfFirmware;

TEST(ParseTdvf, finds_the_descriptor_behind_other_entries) {
    const auto descriptor = parse_tdvf(Firmware().build());
    ASSERT_TRUE(descriptor) << descriptor.error().describe();
    EXPECT_EQ(descriptor->offset, 512U);
    EXPECT_EQ(descriptor->sections, 2U);
}

struct BadFirmware {
    const char* name;
    Firmware firmware;
    const char* words;
};

class ParseTdvfRefuses : public testing::TestWithParam<BadFirmware> {};

TEST_P(ParseTdvfRefuses, with_the_cause) {
    const auto descriptor = parse_tdvf(GetParam().firmware.build());
    ASSERT_FALSE(descriptor);
    EXPECT_EQ(descriptor.error().code, ErrorCode::corrupt_data);
    EXPECT_THAT(descriptor.error().message, HasSubstr(GetParam().words));
}

Firmware with(void (*change)(Firmware&)) {
    Firmware firmware;
    change(firmware);
    return firmware;
}

INSTANTIATE_TEST_SUITE_P(
    Each, ParseTdvfRefuses,
    testing::Values(
        BadFirmware{"no_entry", with([](Firmware& f) { f.entry_guid = other_guid; }),
                    "no TDVF entry"},
        BadFirmware{"table_too_long", with([](Firmware& f) { f.table_bytes = 60000; }), "60000"},
        BadFirmware{"table_too_short", with([](Firmware& f) { f.table_bytes = 3; }), "length 3"},
        BadFirmware{"entry_of_no_length", with([](Firmware& f) { f.other_entry_bytes = 0; }),
                    "length 0"},
        BadFirmware{"entry_too_long", with([](Firmware& f) { f.other_entry_bytes = 500; }),
                    "length 500"},
        BadFirmware{"distance_too_large", with([](Firmware& f) { f.distance = 5000; }), "outside"},
        BadFirmware{"distance_too_small", with([](Firmware& f) { f.distance = 8; }), "outside"},
        BadFirmware{"no_signature", with([](Firmware& f) { f.signature = "XXXX"; }),
                    "no TDVF descriptor"},
        BadFirmware{"version", with([](Firmware& f) { f.version = 2; }), "version 2"},
        BadFirmware{"no_sections", with([](Firmware& f) { f.sections.clear(); }), "0 sections"},
        BadFirmware{"section_outside", with([](Firmware& f) { f.sections[0].data_bytes = 2000; }),
                    "outside"},
        BadFirmware{"section_memory", with([](Firmware& f) { f.sections[0].memory_bytes = 100; }),
                    "memory"}),
    [](const auto& test) { return test.param.name; });

TEST(ParseTdvf, refuses_a_file_without_table) {
    EXPECT_FALSE(parse_tdvf(std::string(4096, '\0')));
    EXPECT_FALSE(parse_tdvf(""));
    EXPECT_FALSE(parse_tdvf(std::string(49, 'x')));
}

TEST(CheckTdvf, names_the_file_and_the_remedy) {
    const tests::TemporaryDirectory folder;
    std::ofstream(folder / "bios.bin") << std::string(4096, '\0');
    const auto result = check_tdvf(folder / "bios.bin");
    ASSERT_FALSE(result);
    EXPECT_THAT(result.error().message, HasSubstr("bios.bin"));
    EXPECT_THAT(result.error().hint, HasSubstr("--tee none"));
}

TEST(CheckTdvf, passes_a_file_with_a_descriptor) {
    const tests::TemporaryDirectory folder;
    std::ofstream(folder / "ovmf.fd", std::ios::binary) << Firmware().build();
    EXPECT_TRUE(check_tdvf(folder / "ovmf.fd"));
}

} // namespace
} // namespace host_runner::image

// SPDX-License-Identifier: Apache-2.0
#include "host_runner/image/tdvf.hpp"

#include <cstring>
#include <fstream>

#include <gmock/gmock.h>

#include "fakes/temporary_directory.hpp"

namespace host_runner::image {
namespace {

using testing::HasSubstr;

constexpr std::string_view footer_guid("\xde\x82\xb5\x96\xb2\x1f\xf7\x45\xba\xea\xa3\x66\xc5\x5a"
                                       "\x08\x2d",
                                       16);
constexpr std::string_view tdvf_guid("\x35\x65\x7a\xe4\x4a\x98\x98\x47\x86\x5e\x46\x85\xa7\xbf"
                                     "\x8e\xc2",
                                     16);
constexpr std::string_view other_guid("0123456789abcdef", 16);

template <class T>
std::string little_endian(T value) {
    std::string bytes(sizeof value, '\0');
    std::memcpy(bytes.data(), &value, sizeof value); // this project is for x86 only
    return bytes;
}

struct Section {
    std::uint32_t data_offset = 0, data_bytes = 0;
    std::uint64_t address = 0, memory_bytes = 4096;
    std::uint32_t type = 0, attributes = 0;
};

/// The layout of edk2's OvmfPkg: descriptor somewhere, GUID table before the last 32 bytes.
struct Firmware {
    std::vector<Section> sections{{0, 256, 0xffc00000, 4096, 0, 1}, {0, 0, 0x800000, 8192, 3, 0}};
    std::uint32_t version = 1;
    std::string signature = "TDVF";
    std::string_view entry_guid = tdvf_guid;
    std::uint16_t table_bytes = 18 + 22 + 26;
    std::uint16_t other_entry_bytes = 26;
    std::uint32_t distance = 512;

    [[nodiscard]] std::string build() const {
        std::string descriptor =
            signature + little_endian(static_cast<std::uint32_t>(16 + 32 * sections.size())) +
            little_endian(version) + little_endian(static_cast<std::uint32_t>(sections.size()));
        for (const auto& section : sections)
            descriptor += little_endian(section.data_offset) + little_endian(section.data_bytes) +
                          little_endian(section.address) + little_endian(section.memory_bytes) +
                          little_endian(section.type) + little_endian(section.attributes);
        const std::string table = little_endian(distance) + little_endian(std::uint16_t{22}) +
                                  std::string(entry_guid) + std::string(8, 'd') +
                                  little_endian(other_entry_bytes) + std::string(other_guid) +
                                  little_endian(table_bytes) + std::string(footer_guid);
        std::string bytes(1024, '\0');
        bytes.replace(1024 - 512, descriptor.size(), descriptor);
        bytes.replace(1024 - 32 - table.size(), table.size(), table);
        return bytes;
    }
};

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

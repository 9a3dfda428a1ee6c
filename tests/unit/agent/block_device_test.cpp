// SPDX-License-Identifier: Apache-2.0
#include "host_runner/agent/block_device.hpp"

#include <gmock/gmock.h>

#include "fakes/temporary_directory.hpp"
#include "host_runner/base/files.hpp"
#include "host_runner/base/units.hpp"

namespace host_runner::agent {
namespace {

/// A boot sector as mformat writes it, as far as the label goes.
std::string fat32_sector(std::string_view label) {
    std::string sector(512, '\0');
    sector.replace(66, 1, "\x29");
    std::string padded(label);
    padded.resize(11, ' ');
    sector.replace(71, 11, padded);
    sector.replace(82, 8, "FAT32   ");
    sector.replace(510, 2, "\x55\xAA");
    return sector;
}

TEST(FatLabel, reads_the_label_of_a_fat32_boot_sector_without_padding) {
    EXPECT_EQ(fat_label(fat32_sector("DSTACKSHR")), "DSTACKSHR");
}

TEST(FatLabel, reads_the_label_of_a_fat16_boot_sector) {
    std::string sector(512, '\0');
    sector.replace(38, 1, "\x29");
    sector.replace(43, 11, "SMALLDISK  ");
    sector.replace(54, 8, "FAT16   ");
    sector.replace(510, 2, "\x55\xAA");
    EXPECT_EQ(fat_label(sector), "SMALLDISK");
}

TEST(FatLabel, refuses_sectors_without_the_boot_signature) {
    auto sector = fat32_sector("DSTACKSHR");
    sector[510] = 0;
    EXPECT_EQ(fat_label(sector), std::nullopt);
}

TEST(FatLabel, refuses_what_is_too_short_or_no_fat) {
    EXPECT_EQ(fat_label(fat32_sector("X").substr(0, 511)), std::nullopt);
    EXPECT_EQ(fat_label(std::string(512, '\x55')), std::nullopt);
}

class Disks : public testing::Test {
protected:
    void write(const std::string& name, std::string_view bytes) {
        ASSERT_TRUE(write_file_atomic(folder / name, bytes));
    }
    tests::TemporaryDirectory folder;
};

TEST_F(Disks, lists_whole_virtio_disks_in_order_without_partitions) {
    for (const auto* name : {"vdb", "vda", "vda1", "vdaa", "sda", "vd"})
        write(name, "");
    EXPECT_THAT(*virtio_disks(folder.path()), testing::ElementsAre(folder / "vda", folder / "vdb"));
}

TEST_F(Disks, finds_the_disk_with_the_label) {
    write("vda", std::string(1024, 'x'));
    write("vdb", "");
    write("vdc", fat32_sector("DSTACKSHR"));
    EXPECT_EQ(*find_fat_disk(folder.path(), "DSTACKSHR"), folder / "vdc");
}

TEST_F(Disks, says_which_label_is_missing) {
    write("vda", fat32_sector("OTHER"));
    const auto found = find_fat_disk(folder.path(), "DSTACKSHR");
    ASSERT_FALSE(found);
    EXPECT_EQ(found.error().code, ErrorCode::not_found);
    EXPECT_THAT(found.error().message, testing::HasSubstr("DSTACKSHR"));
}

TEST_F(Disks, takes_a_disk_of_zeros_for_blank_whatever_follows_the_first_mib) {
    write("vdb", std::string(mib, '\0') + "x");
    EXPECT_TRUE(*is_blank(folder / "vdb"));
}

TEST_F(Disks, takes_a_single_byte_in_the_first_mib_for_content) {
    std::string bytes(mib, '\0');
    bytes.back() = 'x';
    write("vdb", bytes);
    EXPECT_FALSE(*is_blank(folder / "vdb"));
}

} // namespace
} // namespace host_runner::agent

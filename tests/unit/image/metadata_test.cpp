// SPDX-License-Identifier: Apache-2.0
#include "host_runner/image/metadata.hpp"

#include <gmock/gmock.h>

namespace host_runner::image {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

const std::string digest(64, 'a');

TEST(Metadata, reads_every_field_and_ignores_unknown_ones) {
    const auto metadata = parse_metadata(
        R"({"kernel":"bzImage","initrd":"i.gz","bios":"ovmf.fd","rootfs":"r.iso","hda":"disk.img",)"
        R"("cmdline":"console=ttyS0","rootfs_hash":")" +
        digest +
        R"(","version":"0.3.6","shared_ro":true,"is_dev":true,"git_revision":"x","n":[1]})");
    ASSERT_TRUE(metadata) << metadata.error().describe();
    EXPECT_EQ(metadata->kernel, "bzImage");
    EXPECT_EQ(metadata->initrd, "i.gz");
    EXPECT_EQ(metadata->bios, "ovmf.fd");
    EXPECT_EQ(metadata->rootfs, "r.iso");
    EXPECT_EQ(metadata->hda, "disk.img");
    EXPECT_EQ(metadata->cmdline, "console=ttyS0");
    EXPECT_EQ(metadata->rootfs_hash, digest);
    EXPECT_EQ(metadata->version, "0.3.6");
    EXPECT_TRUE(metadata->shared_ro);
    EXPECT_TRUE(metadata->is_dev);
    EXPECT_EQ(metadata->guest, Guest::dstack);
}

TEST(Metadata, takes_null_for_absent) {
    const auto metadata = parse_metadata(R"({"kernel":"k","initrd":"i","bios":null})");
    ASSERT_TRUE(metadata) << metadata.error().describe();
    EXPECT_EQ(metadata->bios, std::nullopt);
}

TEST(Metadata, knows_our_own_guest) {
    const auto metadata = parse_metadata(R"({"kernel":"k","initrd":"i","guest":"host-runner"})");
    ASSERT_TRUE(metadata);
    EXPECT_EQ(metadata->guest, Guest::host_runner);
}

struct BadMetadata {
    const char* name;
    std::string text;
    const char* words;
    ErrorCode code = ErrorCode::corrupt_data;
};

class MetadataRefuses : public testing::TestWithParam<BadMetadata> {};

TEST_P(MetadataRefuses, with_the_cause) {
    const auto metadata = parse_metadata(GetParam().text);
    ASSERT_FALSE(metadata);
    EXPECT_EQ(metadata.error().code, GetParam().code);
    EXPECT_THAT(metadata.error().message, HasSubstr(GetParam().words));
}

std::string with_field(const std::string& field) {
    return R"({"kernel":"k","initrd":"i",)" + field + "}";
}

INSTANTIATE_TEST_SUITE_P(
    Each, MetadataRefuses,
    testing::Values(
        BadMetadata{"no_json", "kernel=bzImage", "JSON"},
        BadMetadata{"no_object", "[]", "JSON object"},
        BadMetadata{"missing_kernel", R"({"initrd":"i"})", "'kernel' is missing"},
        BadMetadata{"missing_initrd", R"({"kernel":"k"})", "'initrd' is missing"},
        BadMetadata{"wrong_type", with_field(R"("version":5)"), "'version' must be a string"},
        BadMetadata{"wrong_flag", with_field(R"("is_dev":"yes")"),
                    "'is_dev' must be true or false"},
        BadMetadata{"slash", with_field(R"("bios":"a/b")"), "'bios' names \"a/b\""},
        BadMetadata{"absolute", with_field(R"("bios":"/usr/share/qemu/OVMF.fd")"), "'bios'"},
        BadMetadata{"parent", with_field(R"("rootfs":"..")"), "'rootfs'"},
        BadMetadata{"zero_byte", with_field(R"("rootfs":"a\u0000b")"), "'rootfs'"},
        BadMetadata{"bad_hash", with_field(R"("rootfs_hash":"12")"), "'rootfs_hash'"},
        BadMetadata{"newline", with_field(R"("cmdline":"a\nb")"), "'cmdline'"},
        BadMetadata{"long_cmdline", with_field("\"cmdline\":\"" + std::string(2048, 'x') + "\""),
                    "2048 characters"},
        BadMetadata{"unknown_guest", with_field(R"("guest":"other")"), "\"other\"",
                    ErrorCode::unsupported},
        BadMetadata{"deep", with_field("\"x\":" + std::string(100, '[') + std::string(100, ']')),
                    "nested"},
        BadMetadata{"large", std::string(max_metadata_bytes + 1, ' '), "more than"}),
    [](const auto& test) { return test.param.name; });

TEST(ParseVersion, takes_three_leading_parts) {
    EXPECT_EQ(parse_version("0.5.3"), (Version{0, 5, 3}));
    EXPECT_EQ(parse_version("0.5.3.1"), (Version{0, 5, 3}));
    EXPECT_EQ(parse_version("65535.0.10"), (Version{65535, 0, 10}));
}

TEST(ParseVersion, refuses_other_forms) {
    for (const auto* text :
         {"", "0.5", "0.5.x", "0.5.", "v0.5.3", "0.5.65536", "0.-5.3", "0.5.3-1"})
        EXPECT_EQ(parse_version(text), std::nullopt) << text;
}

TEST(Sha256Sums, reads_text_and_binary_lines_and_strips_the_folder) {
    const auto sums = parse_sha256sums(digest + "  bzImage\n" + std::string(64, 'B') + " *./a b");
    ASSERT_TRUE(sums) << sums.error().describe();
    ASSERT_EQ(sums->size(), 2U);
    EXPECT_EQ((*sums)[0].name, "bzImage");
    EXPECT_EQ((*sums)[1].name, "a b");
    EXPECT_EQ((*sums)[1].sha256, std::string(64, 'b'));
}

TEST(Sha256Sums, names_the_line_that_is_wrong) {
    for (const auto& line :
         {std::string("x"), digest, digest + "  ", digest + " bzImage", digest + "  ../bzImage",
          digest + "  /etc/passwd", digest + "  a/b", std::string(64, 'g') + "  bzImage",
          "\\" + digest + "  bzImage", std::string()}) {
        const auto sums = parse_sha256sums(digest + "  good\n" + line + "\n");
        ASSERT_FALSE(sums) << line;
        EXPECT_EQ(sums.error().code, ErrorCode::corrupt_data);
        EXPECT_THAT(sums.error().message, HasSubstr("Line 2"));
    }
}

TEST(Sha256Sums, refuses_a_name_given_twice) {
    EXPECT_FALSE(parse_sha256sums(digest + "  a\n" + digest + "  ./a\n"));
}

TEST(Sha256Sums, caps_the_number_of_lines) {
    std::string text;
    for (std::size_t i = 0; i <= max_sums; ++i)
        text += digest + "  file" + std::to_string(i) + "\n";
    EXPECT_FALSE(parse_sha256sums(text));
}

TEST(ParseDigest, takes_one_line_of_hex) {
    EXPECT_EQ(parse_digest(std::string(64, 'A') + "\n").value(), digest);
    EXPECT_FALSE(parse_digest(digest + "\n\n"));
    EXPECT_FALSE(parse_digest("abc"));
}

TEST(RootfsBinding, finds_every_value_on_the_command_line) {
    const auto binding =
        find_rootfs_binding("a dstack.rootfs_hash=1  xdstack.rootfs_hash=9 dstack.rootfs_hash=2 "
                            "dstack.rootfs_size=4096");
    EXPECT_THAT(binding.hashes, ElementsAre("1", "2"));
    EXPECT_THAT(binding.sizes, ElementsAre("4096"));
}

} // namespace
} // namespace host_runner::image

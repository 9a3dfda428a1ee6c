// SPDX-License-Identifier: Apache-2.0
#include "host_runner/image/image.hpp"

#include <algorithm>
#include <filesystem>
#include <fstream>

#include <gmock/gmock.h>

#include "fakes/image_directory.hpp"

namespace host_runner::image {
namespace {

using testing::HasSubstr;
using tests::ImageDirectory;

TEST(LoadImage, gives_canonical_paths_and_the_metadata) {
    ImageDirectory directory;
    directory.metadata["is_dev"] = "true";
    directory.seal();
    const auto image = load_image(directory.path() + "/../dstack-0.5.6/.");
    ASSERT_TRUE(image) << image.error().describe();
    EXPECT_EQ(image->directory, std::filesystem::canonical(directory.path()));
    EXPECT_EQ(image->name, "dstack-0.5.6");
    EXPECT_EQ(image->guest, Guest::dstack);
    EXPECT_EQ(image->version, (Version{0, 5, 6}));
    EXPECT_EQ(image->kernel, image->directory + "/bzImage");
    EXPECT_EQ(image->initrd, image->directory + "/initramfs.cpio.gz");
    EXPECT_EQ(image->firmware, image->directory + "/ovmf.fd");
    EXPECT_EQ(image->rootfs, image->directory + "/rootfs.img.verity");
    EXPECT_EQ(image->disk_backing, std::nullopt);
    EXPECT_EQ(image->rootfs_hash, std::string(64, 'a'));
    EXPECT_EQ(image->rootfs_size, 8192U);
    EXPECT_TRUE(image->shared_read_only);
    EXPECT_TRUE(image->reports_progress);
    EXPECT_TRUE(image->is_dev);
    EXPECT_EQ(image->os_image_hash, crypto::sha256_hex(directory.read("sha256sum.txt")));
}

struct Generation {
    const char* version;
    Layout layout;
};

class LoadImageGeneration : public testing::TestWithParam<Generation> {};

TEST_P(LoadImageGeneration, decides_the_layout) {
    ImageDirectory directory;
    if (GetParam().layout == Layout::a)
        directory.make_generation_a();
    directory.metadata["version"] = '"' + std::string(GetParam().version) + '"';
    directory.seal();
    const auto image = load_image(directory.path());
    ASSERT_TRUE(image) << image.error().describe();
    EXPECT_EQ(image->layout, GetParam().layout);
}

INSTANTIATE_TEST_SUITE_P(
    Each, LoadImageGeneration,
    testing::Values(Generation{"0.3.0", Layout::a}, Generation{"0.3.6", Layout::a},
                    Generation{"0.4.2", Layout::a}, Generation{"0.5.0", Layout::b},
                    Generation{"0.5.5", Layout::b}, Generation{"0.5.5.1", Layout::b},
                    Generation{"0.5.6", Layout::c}, Generation{"0.5.11", Layout::c},
                    Generation{"0.6.0", Layout::c}, Generation{"1.0.0", Layout::c}),
    [](const auto& test) {
        std::string name = test.param.version;
        std::replace(name.begin(), name.end(), '.', '_');
        return name;
    });

TEST(LoadImage, takes_the_version_from_the_directory_name) {
    ImageDirectory directory("dstack-nvidia-dev-0.3.3");
    directory.make_generation_a();
    directory.metadata.erase("version");
    directory.seal();
    const auto image = load_image(directory.path());
    ASSERT_TRUE(image) << image.error().describe();
    EXPECT_EQ(image->version, (Version{0, 3, 3}));
    EXPECT_EQ(image->layout, Layout::a);
    EXPECT_EQ(image->rootfs_hash, std::string(64, 'b'));
    EXPECT_EQ(image->os_image_hash, crypto::sha256_hex(directory.read("sha256sum.txt")));
}

TEST(LoadImage, says_how_to_give_a_version_where_there_is_none) {
    ImageDirectory directory("nvidia");
    directory.metadata["version"] = R"("0.5.x")";
    directory.seal();
    const auto image = load_image(directory.path());
    ASSERT_FALSE(image);
    EXPECT_EQ(image.error().code, ErrorCode::invalid_argument);
    EXPECT_THAT(image.error().message, HasSubstr("0.5.x"));
    EXPECT_THAT(image.error().hint, HasSubstr("NAME-VERSION"));
}

TEST(LoadImage, refuses_generations_before_the_first_known) {
    ImageDirectory directory;
    directory.metadata["version"] = R"("0.2.9")";
    directory.seal();
    const auto image = load_image(directory.path());
    ASSERT_FALSE(image);
    EXPECT_EQ(image.error().code, ErrorCode::unsupported);
}

TEST(LoadImage, gives_our_own_image_layout_c_at_any_version) {
    ImageDirectory directory("native");
    directory.metadata["guest"] = R"("host-runner")";
    directory.metadata["version"] = R"("0.1.0")";
    directory.metadata["shared_ro"] = "false";
    directory.seal();
    const auto image = load_image(directory.path());
    ASSERT_TRUE(image) << image.error().describe();
    EXPECT_EQ(image->guest, Guest::host_runner);
    EXPECT_EQ(image->layout, Layout::c);
    EXPECT_TRUE(image->reports_progress);
}

TEST(LoadImage, lets_our_own_image_run_from_its_initramfs) {
    ImageDirectory directory;
    directory.metadata["guest"] = R"("host-runner")";
    directory.metadata.erase("rootfs");
    directory.metadata.erase("bios");
    directory.seal();
    const auto image = load_image(directory.path());
    ASSERT_TRUE(image) << image.error().describe();
    EXPECT_EQ(image->rootfs, std::nullopt);
    EXPECT_EQ(image->firmware, std::nullopt);
}

TEST(LoadImage, refuses_a_dstack_image_without_root_file_system) {
    ImageDirectory directory;
    directory.metadata.erase("rootfs");
    directory.seal();
    const auto image = load_image(directory.path());
    ASSERT_FALSE(image);
    EXPECT_THAT(image.error().message, HasSubstr("'rootfs'"));
}

TEST(LoadImage, refuses_an_iso_from_version_0_5_on) {
    ImageDirectory directory;
    directory.write("rootfs.iso", "iso");
    directory.metadata["rootfs"] = R"("rootfs.iso")";
    directory.metadata["version"] = R"("0.5.0")";
    directory.seal();
    const auto image = load_image(directory.path());
    ASSERT_FALSE(image);
    EXPECT_EQ(image.error().code, ErrorCode::corrupt_data);
    EXPECT_THAT(image.error().message, HasSubstr("rootfs.iso"));
}

TEST(LoadImage, asks_for_the_rootfs_hash_of_an_iso) {
    ImageDirectory directory;
    directory.make_generation_a();
    directory.metadata.erase("rootfs_hash");
    directory.seal();
    const auto image = load_image(directory.path());
    ASSERT_FALSE(image);
    EXPECT_THAT(image.error().message, HasSubstr("rootfs_hash"));
}

class LoadImageFile : public testing::TestWithParam<const char*> {};

TEST_P(LoadImageFile, missing_is_named) {
    ImageDirectory directory;
    directory.seal();
    directory.remove(GetParam());
    const auto image = load_image(directory.path());
    ASSERT_FALSE(image);
    EXPECT_EQ(image.error().code, ErrorCode::not_found);
    EXPECT_THAT(image.error().message, HasSubstr(GetParam()));
    EXPECT_THAT(image.error().message, HasSubstr("dstack-0.5.6"));
}

TEST_P(LoadImageFile, that_is_a_folder_is_refused) {
    ImageDirectory directory;
    directory.seal();
    directory.remove(GetParam());
    std::filesystem::create_directory(directory / GetParam());
    const auto image = load_image(directory.path());
    ASSERT_FALSE(image);
    EXPECT_EQ(image.error().code, ErrorCode::corrupt_data);
    EXPECT_THAT(image.error().message, HasSubstr(GetParam()));
}

TEST_P(LoadImageFile, behind_a_link_out_of_the_directory_is_refused) {
    ImageDirectory directory;
    directory.seal();
    directory.remove(GetParam());
    std::filesystem::create_symlink("/etc/passwd", directory / GetParam());
    const auto image = load_image(directory.path());
    ASSERT_FALSE(image);
    EXPECT_EQ(image.error().code, ErrorCode::corrupt_data);
    EXPECT_THAT(image.error().message, HasSubstr("/etc/passwd"));
}

INSTANTIATE_TEST_SUITE_P(Each, LoadImageFile,
                         testing::Values("metadata.json", "bzImage", "initramfs.cpio.gz", "ovmf.fd",
                                         "rootfs.img.verity"),
                         [](const auto& test) {
                             std::string name = test.param;
                             std::replace(name.begin(), name.end(), '.', '_');
                             return name;
                         });

TEST(LoadImage, refuses_a_link_to_a_folder_whose_name_begins_alike) {
    ImageDirectory directory;
    directory.seal();
    std::filesystem::create_directory(directory.path() + "-other");
    std::filesystem::rename(directory / "bzImage", directory.path() + "-other/bzImage");
    std::filesystem::create_symlink("../dstack-0.5.6-other/bzImage", directory / "bzImage");
    EXPECT_FALSE(load_image(directory.path()));
}

TEST(LoadImage, follows_links_inside_the_directory) {
    ImageDirectory directory;
    directory.seal();
    std::filesystem::rename(directory / "bzImage", directory / "vmlinuz");
    std::filesystem::create_symlink("vmlinuz", directory / "bzImage");
    const auto image = load_image(directory.path());
    ASSERT_TRUE(image) << image.error().describe();
    EXPECT_EQ(image->kernel, image->directory + "/vmlinuz");
}

TEST(LoadImage, names_the_file_of_broken_metadata) {
    ImageDirectory directory;
    directory.seal();
    directory.write("metadata.json", "{");
    const auto image = load_image(directory.path());
    ASSERT_FALSE(image);
    EXPECT_EQ(image.error().code, ErrorCode::corrupt_data);
    EXPECT_THAT(image.error().message, HasSubstr("dstack-0.5.6/metadata.json"));
}

TEST(LoadImage, refuses_metadata_above_a_mebibyte) {
    ImageDirectory directory;
    directory.seal();
    directory.write("metadata.json",
                    directory.read("metadata.json") + std::string(std::size_t{1} << 20, ' '));
    const auto image = load_image(directory.path());
    ASSERT_FALSE(image);
    EXPECT_EQ(image.error().code, ErrorCode::corrupt_data);
}

TEST(LoadImage, refuses_a_digest_that_is_none) {
    ImageDirectory directory;
    directory.seal();
    directory.write("digest.txt", "no digest\n");
    const auto image = load_image(directory.path());
    ASSERT_FALSE(image);
    EXPECT_THAT(image.error().message, HasSubstr("digest.txt"));
}

TEST(LoadImage, says_what_a_missing_directory_is_for) {
    const auto image = load_image("/nonexistent/image");
    ASSERT_FALSE(image);
    EXPECT_EQ(image.error().code, ErrorCode::not_found);
    EXPECT_THAT(image.error().hint, HasSubstr("image import"));
}

TEST(LoadImage, points_to_import_for_a_file) {
    const tests::TemporaryDirectory folder;
    std::ofstream(folder / "release.tar.gz") << "archive";
    const auto image = load_image(folder / "release.tar.gz");
    ASSERT_FALSE(image);
    EXPECT_EQ(image.error().code, ErrorCode::invalid_argument);
    EXPECT_THAT(image.error().hint, HasSubstr("image import"));
}

} // namespace
} // namespace host_runner::image

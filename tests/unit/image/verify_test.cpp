// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <chrono>
#include <filesystem>
#include <string>

#include <sys/inotify.h>
#include <unistd.h>

#include <gmock/gmock.h>

#include "fakes/image_directory.hpp"
#include "host_runner/base/unique_fd.hpp"
#include "host_runner/image/image.hpp"

namespace host_runner::image {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using tests::ImageDirectory;

Image load(const ImageDirectory& directory) {
    auto image = load_image(directory.path());
    if (!image)
        throw std::runtime_error(image.error().describe());
    return *image;
}

/// All rows of a check at launch depth.
std::vector<Check> check(const ImageDirectory& directory) {
    auto checks = verify_image(load(directory), VerifyDepth::launch);
    if (!checks)
        throw std::runtime_error(checks.error().describe());
    return *checks;
}

std::vector<std::string> names(const std::vector<Check>& checks, bool only_failed) {
    std::vector<std::string> result;
    for (const auto& row : checks)
        if (!only_failed || !row.passed)
            result.push_back(row.name);
    return result;
}

std::vector<std::string> failures(const ImageDirectory& directory) {
    return names(check(directory), true);
}

TEST(VerifyImage, runs_all_checks_in_a_fixed_order) {
    ImageDirectory directory;
    const auto checks = check(directory.seal());
    EXPECT_THAT(names(checks, false),
                ElementsAre("sha256 ovmf.fd", "sha256 bzImage", "sha256 initramfs.cpio.gz",
                            "sha256 metadata.json", "sha256sum.txt complete", "digest.txt",
                            "rootfs hash", "rootfs size"));
    EXPECT_THAT(names(checks, true), IsEmpty());
}

class VerifyImageFile : public testing::TestWithParam<const char*> {};

TEST_P(VerifyImageFile, changed_by_one_byte_fails_its_own_check_only) {
    ImageDirectory directory;
    directory.seal();
    directory.write(GetParam(), directory.read(GetParam()) + " ");
    EXPECT_THAT(failures(directory), ElementsAre(std::string("sha256 ") + GetParam()));
}

INSTANTIATE_TEST_SUITE_P(Each, VerifyImageFile,
                         testing::Values("ovmf.fd", "bzImage", "initramfs.cpio.gz",
                                         "metadata.json"),
                         [](const auto& test) {
                             std::string name = test.param;
                             std::replace(name.begin(), name.end(), '.', '_');
                             return name;
                         });

TEST(VerifyImage, fails_digest_where_the_list_of_sums_was_replaced) {
    ImageDirectory directory;
    directory.seal();
    directory.write("bzImage", "another kernel");
    directory.write_sums();
    EXPECT_THAT(failures(directory), ElementsAre("digest.txt"));
}

TEST(VerifyImage, fails_without_sha256sum_txt) {
    ImageDirectory directory;
    directory.seal();
    directory.remove("sha256sum.txt");
    EXPECT_THAT(failures(directory), ElementsAre("sha256sum.txt"));
}

TEST(VerifyImage, fails_without_digest_txt_from_0_5_on) {
    ImageDirectory directory;
    directory.seal();
    directory.remove("digest.txt");
    EXPECT_THAT(failures(directory), ElementsAre("digest.txt"));
}

TEST(VerifyImage, fails_a_listed_file_that_is_missing) {
    ImageDirectory directory;
    directory.write("measurement.tdx.cbor", "m");
    directory.summed.emplace_back("measurement.tdx.cbor");
    directory.seal();
    directory.remove("measurement.tdx.cbor");
    EXPECT_THAT(failures(directory), ElementsAre("sha256 measurement.tdx.cbor"));
}

TEST(VerifyImage, fails_a_listed_link_that_leaves_the_directory) {
    ImageDirectory directory;
    directory.write("extra", "e");
    directory.summed.emplace_back("extra");
    directory.seal();
    directory.remove("extra");
    std::filesystem::create_symlink("/etc/passwd", directory / "extra");
    EXPECT_THAT(failures(directory), ElementsAre("sha256 extra"));
}

TEST(VerifyImage, fails_a_list_that_leaves_the_kernel_out) {
    ImageDirectory directory;
    directory.summed = {"ovmf.fd", "initramfs.cpio.gz", "metadata.json"};
    directory.seal();
    const auto checks = check(directory);
    EXPECT_THAT(names(checks, true), ElementsAre("sha256sum.txt complete"));
    const auto row = std::find_if(checks.begin(), checks.end(),
                                  [](const Check& candidate) { return !candidate.passed; });
    EXPECT_THAT(row->detail, HasSubstr("bzImage"));
}

struct BadCommandLine {
    const char* name;
    std::string text;
    const char* check;
};

class VerifyImageCommandLine : public testing::TestWithParam<BadCommandLine> {};

TEST_P(VerifyImageCommandLine, that_does_not_bind_the_rootfs_fails) {
    ImageDirectory directory;
    directory.metadata["cmdline"] = "\"" + GetParam().text + "\"";
    directory.seal();
    EXPECT_THAT(failures(directory), ElementsAre(GetParam().check));
}

const std::string good_hash = "dstack.rootfs_hash=" + std::string(64, '0') + " ";
const std::string good_size = "dstack.rootfs_size=4096 ";

INSTANTIATE_TEST_SUITE_P(
    Each, VerifyImageCommandLine,
    testing::Values(
        BadCommandLine{"no_hash", good_size, "rootfs hash"},
        BadCommandLine{"short_hash", "dstack.rootfs_hash=00 " + good_size, "rootfs hash"},
        BadCommandLine{"two_hashes", good_hash + good_hash + good_size, "rootfs hash"},
        BadCommandLine{"no_size", good_hash, "rootfs size"},
        BadCommandLine{"two_sizes", good_hash + good_size + good_size, "rootfs size"},
        BadCommandLine{"size_zero", good_hash + "dstack.rootfs_size=0", "rootfs size"},
        BadCommandLine{"size_no_number", good_hash + "dstack.rootfs_size=4096x", "rootfs size"},
        BadCommandLine{"size_no_multiple", good_hash + "dstack.rootfs_size=4097", "rootfs size"},
        BadCommandLine{"size_above_file", good_hash + "dstack.rootfs_size=16384", "rootfs size"}),
    [](const auto& test) { return test.param.name; });

TEST(VerifyImage, counts_the_size_from_the_partition_of_a_parted_file) {
    ImageDirectory directory;
    std::string disk((1 << 20) + 4096, '\0');
    disk.replace(512, 8, "EFI PART");
    directory.write("rootfs.img.parted.verity", disk);
    directory.metadata["rootfs"] = R"("rootfs.img.parted.verity")";
    directory.metadata["cmdline"] = "\"" + good_hash + good_size + "\"";
    EXPECT_THAT(failures(directory.seal()), IsEmpty());
    directory.metadata["cmdline"] = "\"" + good_hash + "dstack.rootfs_size=8192\"";
    EXPECT_THAT(failures(directory.seal()), ElementsAre("rootfs size"));
}

TEST(VerifyImage, passes_a_0_3_release_without_digest_and_cpio) {
    ImageDirectory directory("dstack-nvidia-dev-0.3.3");
    directory.make_generation_a();
    directory.write("rootfs.cpio", "cpio");
    directory.summed = {"bzImage", "initramfs.cpio.gz", "metadata.json",
                        "ovmf.fd", "rootfs.cpio",       "rootfs.iso"};
    directory.seal();
    directory.remove("rootfs.cpio");
    directory.remove("digest.txt");
    EXPECT_THAT(failures(directory), IsEmpty());
}

TEST(VerifyImage, needs_the_iso_in_the_list_at_full_depth) {
    ImageDirectory directory;
    directory.make_generation_a();
    directory.seal();
    const auto without = verify_image(load(directory), VerifyDepth::full);
    ASSERT_TRUE(without);
    EXPECT_THAT(names(*without, true), ElementsAre("rootfs blocks"));
    directory.summed.emplace_back("rootfs.iso");
    directory.seal();
    const auto with = verify_image(load(directory), VerifyDepth::full);
    ASSERT_TRUE(with);
    EXPECT_THAT(names(*with, true), IsEmpty());
}

class RequireVerified : public testing::Test {
protected:
    RequireVerified() {
        directory.seal();
    }
    [[nodiscard]] Result<void> require(std::chrono::seconds later = std::chrono::hours(1)) const {
        return require_verified(load(directory), cache.path(),
                                std::chrono::system_clock::now() + later);
    }
    /// True when the call reads the kernel.
    [[nodiscard]] bool reads_the_kernel() const {
        const UniqueFd watch(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
        ::inotify_add_watch(watch.get(), (directory / "bzImage").c_str(), IN_OPEN);
        EXPECT_TRUE(require());
        std::array<char, 4096> events{};
        return ::read(watch.get(), events.data(), events.size()) > 0;
    }
    ImageDirectory directory;
    tests::TemporaryDirectory cache;
};

TEST_F(RequireVerified, names_the_failed_check_and_the_remedy) {
    directory.write("bzImage", "damaged");
    const auto result = require();
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().code, ErrorCode::corrupt_data);
    EXPECT_THAT(result.error().message, HasSubstr("sha256 bzImage"));
    EXPECT_THAT(result.error().hint, HasSubstr("image verify"));
}

TEST_F(RequireVerified, does_not_hash_a_second_time) {
    EXPECT_TRUE(reads_the_kernel());
    EXPECT_FALSE(reads_the_kernel());
}

TEST_F(RequireVerified, hashes_again_after_a_change_of_equal_size) {
    ASSERT_TRUE(require());
    directory.write("bzImage", "kerneL");
    EXPECT_FALSE(require());
}

TEST_F(RequireVerified, hashes_again_after_a_change_that_keeps_size_and_mtime) {
    ASSERT_TRUE(require());
    const auto time = std::filesystem::last_write_time(directory / "bzImage");
    directory.write("bzImage", "kerneL");
    std::filesystem::last_write_time(directory / "bzImage", time);
    EXPECT_FALSE(require());
}

TEST_F(RequireVerified, never_remembers_a_failure) {
    directory.write("bzImage", "kerneL");
    ASSERT_FALSE(require());
    EXPECT_FALSE(require());
}

TEST_F(RequireVerified, does_not_remember_files_that_have_just_changed) {
    ASSERT_TRUE(require(std::chrono::seconds(0)));
    EXPECT_TRUE(std::filesystem::is_empty(cache.path()));
}

TEST_F(RequireVerified, ignores_a_cache_of_other_content) {
    ASSERT_TRUE(require());
    for (const auto& entry : std::filesystem::directory_iterator(cache.path()))
        std::ofstream(entry.path()) << "nonsense";
    EXPECT_TRUE(reads_the_kernel());
}

TEST_F(RequireVerified, works_without_a_cache) {
    EXPECT_TRUE(require_verified(load(directory), ""));
    EXPECT_TRUE(require_verified(load(directory), "/proc/cannot-be-made"));
}

} // namespace
} // namespace host_runner::image

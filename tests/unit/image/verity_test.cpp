// SPDX-License-Identifier: Apache-2.0
#include "host_runner/image/verity.hpp"

#include <filesystem>
#include <fstream>

#include <gmock/gmock.h>

#include "fakes/temporary_directory.hpp"
#include "host_runner/base/process.hpp"

namespace host_runner::image {
namespace {

using testing::HasSubstr;

constexpr std::size_t data_bytes = 65536;
const char* const tool = "/usr/sbin/veritysetup";

/// A root file system with its tree, made by veritysetup itself.
class CheckVerity : public testing::Test {
protected:
    void SetUp() override {
        if (!std::filesystem::exists(tool))
            GTEST_SKIP() << "veritysetup (cryptsetup-bin) is not installed";
        std::string data(data_bytes, '\0');
        for (std::size_t i = 0; i < data.size(); ++i)
            data[i] = static_cast<char>(i * 31 >> 3);
        std::ofstream(path, std::ios::binary) << data;
        ProcessSpec spec;
        spec.argv = {tool, "format", path, path, "--hash-offset=" + std::to_string(data_bytes)};
        ForkExecLauncher launcher;
        const auto output = run_captured(launcher, spec, std::chrono::seconds(20));
        ASSERT_TRUE(output) << output.error().describe();
        const auto at = output->out.find("Root hash:");
        ASSERT_NE(at, std::string::npos) << output->err;
        const auto hash_at = output->out.find_first_not_of(" \t", at + 10);
        image.rootfs = path;
        image.rootfs_hash = output->out.substr(hash_at, 64);
        image.rootfs_size = data_bytes;
    }

    void flip_byte(std::size_t offset) const {
        std::fstream file(*image.rootfs, std::ios::binary | std::ios::in | std::ios::out);
        file.seekg(static_cast<std::streamoff>(offset));
        const auto byte = static_cast<char>(file.get() ^ 1);
        file.seekp(static_cast<std::streamoff>(offset));
        file.put(byte);
    }

    /// Moves the file into a partition at 1 MiB.
    void make_partitioned() {
        const auto target = folder / "rootfs.img.parted.verity";
        std::string start(rootfs_partition_offset, '\0');
        start.replace(512, 8, "EFI PART");
        std::ifstream source(path, std::ios::binary);
        std::ofstream(target, std::ios::binary)
            << start << source.rdbuf() << std::string(16896, '\0');
        image.rootfs = target;
    }

    tests::TemporaryDirectory folder;
    std::string path = folder / "rootfs.img.verity";
    Image image;
};

TEST_F(CheckVerity, passes_an_intact_file) {
    const auto check = check_verity(image);
    ASSERT_TRUE(check) << check.error().describe();
    EXPECT_TRUE(check->passed) << check->detail;
}

TEST_F(CheckVerity, fails_one_changed_data_byte) {
    flip_byte(40000);
    const auto check = check_verity(image);
    ASSERT_TRUE(check);
    EXPECT_FALSE(check->passed);
    EXPECT_THAT(check->detail, HasSubstr("veritysetup"));
}

TEST_F(CheckVerity, fails_one_changed_byte_of_the_tree) {
    flip_byte(data_bytes + 4096 + 10);
    EXPECT_FALSE(check_verity(image).value().passed);
}

TEST_F(CheckVerity, fails_another_root_hash) {
    image.rootfs_hash.front() = image.rootfs_hash.front() == '0' ? '1' : '0';
    EXPECT_FALSE(check_verity(image).value().passed);
}

TEST_F(CheckVerity, finds_the_partition_of_a_parted_file) {
    make_partitioned();
    const auto intact = check_verity(image);
    ASSERT_TRUE(intact) << intact.error().describe();
    EXPECT_TRUE(intact->passed) << intact->detail;
    flip_byte(rootfs_partition_offset + 40000);
    EXPECT_FALSE(check_verity(image).value().passed);
}

TEST_F(CheckVerity, says_what_to_install_where_the_tool_is_missing) {
    const auto check = check_verity(image, "/nonexistent/veritysetup");
    ASSERT_FALSE(check);
    EXPECT_EQ(check.error().code, ErrorCode::unsupported);
    EXPECT_THAT(check.error().hint, HasSubstr("cryptsetup-bin"));
}

TEST_F(CheckVerity, fails_a_command_line_without_hash) {
    image.rootfs_hash.clear();
    EXPECT_FALSE(check_verity(image).value().passed);
}

} // namespace
} // namespace host_runner::image

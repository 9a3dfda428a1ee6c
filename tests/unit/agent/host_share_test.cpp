// SPDX-License-Identifier: Apache-2.0
#include "host_runner/agent/host_share.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>
#include <gmock/gmock.h>

#include "fakes/temporary_directory.hpp"
#include "host_runner/base/files.hpp"
#include "host_runner/crypto/digest.hpp"

namespace host_runner::agent {
namespace {

using testing::HasSubstr;

class HostShareTest : public testing::Test {
protected:
    void SetUp() override {
        ASSERT_TRUE(make_directories(share / "files"));
        protocol::AppFile file;
        file.name = "./page.html";
        file.size = content.size();
        file.sha256 = crypto::sha256_hex(content);
        app.name = "demo";
        app.files = {file};
        put("app-compose.json", protocol::encode_app_compose(app));
        put(".sys-config.json", "{}");
        put("files/" + file.sha256, content);
    }
    void put(const std::string& name, std::string_view bytes) {
        ASSERT_TRUE(write_file_atomic(share / name, bytes));
    }
    [[nodiscard]] std::string delivered() const {
        return "files/" + app.files.front().sha256;
    }
    Result<HostShare> copy() {
        return copy_host_share(share.path(), copies / "share");
    }
    tests::TemporaryDirectory share;
    tests::TemporaryDirectory copies;
    const std::string content = "<p>page</p>";
    protocol::AppCompose app;
};

TEST_F(HostShareTest, copies_the_files_and_hashes_the_raw_bytes) {
    const auto taken = copy();
    ASSERT_TRUE(taken) << taken.error().describe();
    EXPECT_EQ(taken->app.name, "demo");
    EXPECT_EQ(taken->compose_hash, crypto::sha256_hex(protocol::encode_app_compose(app)));
    EXPECT_EQ(*read_file(copies / ("share/" + delivered()), 1000), content);
}

TEST_F(HostShareTest, makes_delivered_files_executable_and_immutable) {
    ASSERT_TRUE(copy());
    struct stat status {};
    ASSERT_EQ(::stat((copies / ("share/" + delivered())).c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777U, 0555U);
}

TEST_F(HostShareTest, refuses_a_delivered_file_with_another_content) {
    put(delivered(), "<p>evil</p>");
    const auto taken = copy();
    ASSERT_FALSE(taken);
    EXPECT_EQ(taken.error().code, ErrorCode::corrupt_data);
    EXPECT_THAT(taken.error().message, HasSubstr("./page.html"));
}

TEST_F(HostShareTest, refuses_a_delivered_file_of_another_size) {
    put(delivered(), content.substr(1));
    EXPECT_EQ(copy().error().code, ErrorCode::corrupt_data);
    put(delivered(), content + "more");
    tests::TemporaryDirectory other;
    EXPECT_EQ(copy_host_share(share.path(), other / "share").error().code, ErrorCode::corrupt_data);
}

TEST_F(HostShareTest, refuses_a_delivered_file_that_is_not_there) {
    ASSERT_EQ(::unlink((share / delivered()).c_str()), 0);
    EXPECT_EQ(copy().error().code, ErrorCode::not_found);
}

TEST_F(HostShareTest, names_the_required_file_that_is_missing) {
    ASSERT_EQ(::unlink((share / ".sys-config.json").c_str()), 0);
    const auto taken = copy();
    ASSERT_FALSE(taken);
    EXPECT_EQ(taken.error().code, ErrorCode::not_found);
    EXPECT_THAT(taken.error().message, HasSubstr(".sys-config.json"));
}

TEST_F(HostShareTest, follows_no_link) {
    ASSERT_EQ(::unlink((share / ".sys-config.json").c_str()), 0);
    ASSERT_EQ(::symlink("/etc/passwd", (share / ".sys-config.json").c_str()), 0);
    EXPECT_FALSE(copy());
}

TEST_F(HostShareTest, opens_nothing_but_regular_files) {
    ASSERT_EQ(::unlink((share / ".sys-config.json").c_str()), 0);
    ASSERT_EQ(::mkfifo((share / ".sys-config.json").c_str(), 0600), 0);
    const auto taken = copy();
    ASSERT_FALSE(taken);
    EXPECT_EQ(taken.error().code, ErrorCode::corrupt_data);
}

TEST_F(HostShareTest, refuses_a_file_above_its_cap) {
    put(".instance_info", std::string(max_instance_info_bytes + 1, ' '));
    const auto taken = copy();
    ASSERT_FALSE(taken);
    EXPECT_EQ(taken.error().code, ErrorCode::corrupt_data);
    EXPECT_THAT(taken.error().message, HasSubstr("10241"));
}

TEST_F(HostShareTest, continues_the_identity_of_an_earlier_boot) {
    const auto first = copy();
    ASSERT_TRUE(first);
    put(".instance_info", encode_instance_info(first->instance));
    tests::TemporaryDirectory other;
    const auto second = copy_host_share(share.path(), other / "share");
    ASSERT_TRUE(second);
    EXPECT_EQ(second->instance.instance_id, first->instance.instance_id);
    EXPECT_EQ(second->instance.instance_id_seed, first->instance.instance_id_seed);
}

TEST(InstanceInfo, computes_the_instance_id_from_seed_and_app_id) {
    const std::string seed(40, '1');
    const std::string app_id(40, '2');
    const auto info = make_instance_info(
        fmt::format(R"({{"instance_id_seed":"{}","app_id":"{}"}})", seed, app_id), "");
    ASSERT_TRUE(info);
    // printf '\x11%.0s' 20 times, '\x22' 20 times, through sha256sum, its first 40 digits.
    std::string bytes(20, '\x11');
    bytes.append(20, '\x22');
    EXPECT_EQ(info->instance_id, crypto::sha256_hex(bytes).substr(0, 40));
}

TEST(InstanceInfo, makes_another_seed_for_each_new_instance) {
    const std::string hash(64, 'a');
    const auto one = make_instance_info("", hash);
    const auto two = make_instance_info("", hash);
    ASSERT_TRUE(one && two);
    EXPECT_NE(one->instance_id_seed, two->instance_id_seed);
    EXPECT_EQ(one->app_id, hash.substr(0, 40));
}

TEST(InstanceInfo, refuses_what_is_no_object_of_hex_ids) {
    const std::string hash(64, 'a');
    for (const auto* json : {"[", "[]", "null", R"({"app_id":7})", R"({"app_id":"abcd"})",
                             R"({"instance_id_seed":"zz"})"})
        EXPECT_EQ(make_instance_info(json, hash).error().code, ErrorCode::corrupt_data) << json;
}

} // namespace
} // namespace host_runner::agent

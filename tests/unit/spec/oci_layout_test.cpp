// SPDX-License-Identifier: Apache-2.0
#include "host_runner/spec/oci_layout.hpp"

#include <gmock/gmock.h>

#include "fakes/oci_layout.hpp"
#include "fakes/temporary_directory.hpp"

namespace host_runner::spec {
namespace {

using testing::HasSubstr;

std::string descriptor(const std::string& digest) {
    return R"({"mediaType":"application/wasm","size":3,"digest":")" + digest + "\"}";
}

const std::string good_digest = "sha256:" + std::string(64, 'a');

class OciLayout : public testing::Test {
protected:
    [[nodiscard]] Error error() const {
        const auto module = find_oci_module(folder.path());
        return module ? Error{} : module.error();
    }
    tests::TemporaryDirectory folder;
};

TEST_F(OciLayout, leads_to_its_module) {
    for (const auto* type : {"application/wasm", "application/vnd.wasm.content.layer.v1+wasm"}) {
        tests::write_oci_layout(folder.path(), "module", type);
        const auto module = find_oci_module(folder.path());
        ASSERT_TRUE(module) << module.error().describe();
        EXPECT_EQ(*read_file(module->path, 100), "module");
        EXPECT_EQ(module->descriptor.sha256, crypto::sha256_hex("module"));
        EXPECT_EQ(module->descriptor.size, 6U);
    }
}

TEST_F(OciLayout, of_a_container_image_is_refused) {
    tests::write_oci_layout(folder.path(), "tar", "application/vnd.oci.image.layer.v1.tar+gzip");
    EXPECT_EQ(error().code, ErrorCode::unsupported);
    EXPECT_THAT(error().message, HasSubstr("0 layers"));
}

TEST_F(OciLayout, with_two_images_is_refused) {
    ASSERT_TRUE(write_file_atomic(folder / "index.json", R"({"manifests":[)" +
                                                             descriptor(good_digest) + "," +
                                                             descriptor(good_digest) + "]}"));
    EXPECT_EQ(error().code, ErrorCode::unsupported);
    EXPECT_THAT(error().message, HasSubstr("2 images"));
}

TEST_F(OciLayout, with_a_changed_manifest_is_refused) {
    tests::write_oci_layout(folder.path(), "module");
    const auto index = parse_oci_descriptors(*read_file(folder / "index.json", 1 << 20));
    ASSERT_TRUE(index);
    ASSERT_TRUE(
        write_file_atomic(folder / ("blobs/sha256/" + index->front().sha256), R"({"layers":[]})"));
    EXPECT_EQ(error().code, ErrorCode::corrupt_data);
}

TEST_F(OciLayout, that_is_incomplete_is_refused) {
    EXPECT_EQ(error().code, ErrorCode::not_found);
    ASSERT_TRUE(write_file_atomic(folder / "index.json",
                                  R"({"manifests":[)" + descriptor(good_digest) + "]}"));
    EXPECT_EQ(error().code, ErrorCode::not_found);
}

TEST(OciDescriptors, that_are_none_are_refused) {
    for (const auto& text :
         {std::string(), std::string("[]"), std::string("{}"), std::string(R"({"layers":{}})"),
          std::string(R"({"layers":[1]})"), R"({"layers":[)" + descriptor("sha512:aa") + "]}",
          R"({"layers":[)" + descriptor("sha256:../../../etc/passwd") + "]}",
          R"({"layers":[)" + descriptor("sha256:" + std::string(64, 'A')) + "]}"})
        EXPECT_EQ(parse_oci_descriptors(text).error().code, ErrorCode::corrupt_data) << text;
}

} // namespace
} // namespace host_runner::spec

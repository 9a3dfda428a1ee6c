// SPDX-License-Identifier: Apache-2.0
#include "host_runner/crypto/digest.hpp"

#include <gtest/gtest.h>

#include "fakes/temporary_directory.hpp"
#include "host_runner/base/files.hpp"

namespace host_runner::crypto {
namespace {

// FIPS 180-4's example "abc" and the well-known hash of nothing.
constexpr auto abc_hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
constexpr auto empty_hash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

TEST(Sha256, agrees_with_the_standard) {
    EXPECT_EQ(sha256_hex("abc"), abc_hash);
    EXPECT_EQ(sha256_hex(""), empty_hash);
}

TEST(Sha256, gives_the_same_in_pieces_and_after_a_move) {
    Sha256 hash;
    hash.update("a");
    Sha256 moved = std::move(hash);
    moved.update("bc");
    EXPECT_EQ(to_hex(moved.finish()), abc_hash);
}

TEST(Sha256, hashes_files_of_several_blocks) {
    const tests::TemporaryDirectory dir;
    const std::string bytes(1'000'001, 'x');
    ASSERT_TRUE(write_file_atomic(dir / "file", bytes));
    EXPECT_EQ(sha256_file(dir / "file").value(), sha256(bytes));
    EXPECT_EQ(sha256_file(dir / "none").error().code, ErrorCode::not_found);
}

TEST(Hex, goes_both_ways_and_refuses_other_text) {
    EXPECT_EQ(to_hex(from_hex("00fFa5").value()), "00ffa5");
    EXPECT_EQ(from_hex("").value().size(), 0U);
    EXPECT_FALSE(from_hex("abc"));
    EXPECT_FALSE(from_hex("0x"));
    EXPECT_FALSE(from_hex("ab g"));
}

TEST(Base64, agrees_with_rfc_4648) {
    for (const auto& [plain, encoded] : std::initializer_list<std::pair<std::string, std::string>>{
             {"", ""}, {"f", "Zg=="}, {"fo", "Zm8="}, {"foo", "Zm9v"}, {"foobar", "Zm9vYmFy"}}) {
        const std::vector<std::uint8_t> bytes(plain.begin(), plain.end());
        EXPECT_EQ(to_base64(bytes), encoded);
        EXPECT_EQ(from_base64(encoded).value(), bytes);
    }
}

TEST(Base64, refuses_what_a_lenient_decoder_would_take) {
    for (const char* text : {"Zg=", "Zg", "Z===", "Zm9v\n", " Zm9", "Z=9v", "Zm9v===="})
        EXPECT_FALSE(from_base64(text)) << text;
}

TEST(Random, gives_as_many_bytes_as_asked_for_and_not_the_same_twice) {
    EXPECT_EQ(random_bytes(1000).size(), 1000U);
    EXPECT_EQ(random_hex(6).size(), 12U);
    EXPECT_NE(random_hex(16), random_hex(16));
}

} // namespace
} // namespace host_runner::crypto

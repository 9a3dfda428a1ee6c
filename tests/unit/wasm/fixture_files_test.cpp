// SPDX-License-Identifier: Apache-2.0
#include <sstream>

#include <gtest/gtest.h>

#include "host_runner/base/files.hpp"
#include "host_runner/crypto/digest.hpp"

namespace host_runner::wasm::tests {
namespace {

// A text that was edited without scripts/build-fixtures, or a module that was edited without its
// text.
void expect_sums_fit(const std::string& folder, std::size_t others) {
    const auto sums = read_file(folder + "/SHA256SUMS", 1 << 16);
    ASSERT_TRUE(sums) << sums.error().describe();
    std::size_t count = 1 + others; // SHA256SUMS itself
    std::istringstream lines(*sums);
    for (std::string digest, name; lines >> digest >> name; ++count) {
        const auto found = crypto::sha256_file(join_path(folder, name));
        ASSERT_TRUE(found) << found.error().describe();
        EXPECT_EQ(crypto::to_hex(*found), digest) << name << ": run scripts/build-fixtures";
    }
    EXPECT_EQ(list_directory(folder)->size(), count)
        << "a file without a sum: run scripts/build-fixtures";
}

TEST(FixtureFiles, are_those_that_were_made_together) {
    expect_sums_fit(HOST_RUNNER_SOURCE_DIR "/tests/fixtures/wasm", 0);
    // The folder of the tool that makes components.
    expect_sums_fit(HOST_RUNNER_SOURCE_DIR "/tests/fixtures/wasm_http", 1);
}

} // namespace
} // namespace host_runner::wasm::tests

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Files that hold what the code must put out, to the byte.
///
///     EXPECT_TRUE(tests::matches_golden(path, actual));
///
/// HOST_RUNNER_UPDATE_GOLDEN=1 rewrites files that differ, so that their diff can be reviewed like
/// code. It never makes the first version of one: that is typed by hand, or it would only say what
/// the code does, not what it should do.

#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>
#include <string_view>

#include <gtest/gtest.h>

namespace host_runner::tests {

enum class GoldenMode { compare, rewrite };

inline GoldenMode golden_mode() {
    const char* value = std::getenv("HOST_RUNNER_UPDATE_GOLDEN"); // NOLINT(concurrency-mt-unsafe)
    return value != nullptr && std::string_view(value) == "1" ? GoldenMode::rewrite
                                                              : GoldenMode::compare;
}

inline std::string first_difference(const std::string& expected, const std::string& actual) {
    std::istringstream expected_lines(expected);
    std::istringstream actual_lines(actual);
    std::string want;
    std::string have;
    for (int line = 1;; ++line) {
        const bool more_wanted = static_cast<bool>(std::getline(expected_lines, want));
        const bool more_had = static_cast<bool>(std::getline(actual_lines, have));
        if (!more_wanted && !more_had)
            return "only in the newline at the end";
        if (more_wanted != more_had || want != have)
            return "first in line " + std::to_string(line) +
                   "\n  expected: " + (more_wanted ? want : "(no more lines)") +
                   "\n  actual:   " + (more_had ? have : "(no more lines)");
    }
}

inline testing::AssertionResult matches_golden(const std::string& path, const std::string& actual,
                                               GoldenMode mode = golden_mode()) {
    std::ifstream file(path, std::ios::binary);
    if (!file)
        return testing::AssertionFailure()
               << path << " is missing: type its first version by hand, from the specification";
    std::stringstream expected;
    expected << file.rdbuf();
    if (expected.str() == actual)
        return testing::AssertionSuccess();
    if (mode == GoldenMode::compare)
        return testing::AssertionFailure()
               << path << " differs, " << first_difference(expected.str(), actual)
               << "\n(HOST_RUNNER_UPDATE_GOLDEN=1 rewrites the file)";
    std::ofstream rewritten(path, std::ios::binary);
    rewritten << actual;
    rewritten.close();
    if (!rewritten)
        return testing::AssertionFailure() << "cannot rewrite " << path;
    return testing::AssertionSuccess() << path << " was rewritten: review its diff";
}

} // namespace host_runner::tests

// SPDX-License-Identifier: Apache-2.0
#include "host_runner/wasm/module.hpp"

#include <gmock/gmock.h>

#include "engine_fixture.hpp"

namespace host_runner::wasm::tests {
namespace {

TEST(Module, lists_what_it_imports_and_exports) {
    const auto engine = make_engine();
    const auto module = engine.load(fixture_artifact("missing_imports"));
    ASSERT_TRUE(module) << module.error().describe();
    ASSERT_EQ(module->imports().size(), 3U);
    EXPECT_EQ(module->imports()[2].module, "wasi_snapshot_preview1");
    EXPECT_EQ(module->imports()[2].name, "sock_open");
    EXPECT_EQ(module->imports()[2].kind, ExternKind::function);
    ASSERT_EQ(module->exports().size(), 1U);
    EXPECT_EQ(module->exports()[0].name, "_start");
}

TEST(FindEntry, prefers_the_empty_name_to_start) {
    const auto entry = find_entry({{"_start", ExternKind::function},
                                   {"", ExternKind::function},
                                   {"memory", ExternKind::memory}});
    ASSERT_TRUE(entry);
    EXPECT_TRUE(entry->has_function);
    EXPECT_EQ(entry->function, "");
}

TEST(FindEntry, takes_only_functions) {
    const auto entry = find_entry({{"", ExternKind::memory}, {"_start", ExternKind::function}});
    ASSERT_TRUE(entry);
    EXPECT_EQ(entry->function, "_start");
    EXPECT_FALSE(find_entry({{"_start", ExternKind::global}})->has_function);
}

TEST(FindEntry, knows_a_reactor) {
    const auto entry =
        find_entry({{"_initialize", ExternKind::function}, {"value", ExternKind::function}});
    ASSERT_TRUE(entry);
    EXPECT_TRUE(entry->is_reactor);
    EXPECT_FALSE(entry->has_function);
}

TEST(FindEntry, refuses_a_command_that_is_a_reactor_too) {
    const auto entry =
        find_entry({{"_initialize", ExternKind::function}, {"_start", ExternKind::function}});
    ASSERT_FALSE(entry);
    EXPECT_EQ(entry.error().code, ErrorCode::invalid_argument);
}

} // namespace
} // namespace host_runner::wasm::tests

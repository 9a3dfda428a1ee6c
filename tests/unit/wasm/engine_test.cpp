// SPDX-License-Identifier: Apache-2.0
#include "host_runner/wasm/engine.hpp"

#include <iostream>

#include <sys/resource.h>
#include <unistd.h>

#include <gmock/gmock.h>

#include "engine_fixture.hpp"
#include "fakes/temporary_directory.hpp"

namespace host_runner::wasm::tests {
namespace {

using testing::HasSubstr;

[[noreturn]] void make_an_engine_in(std::uint64_t address_space_bytes) {
    const rlimit small{address_space_bytes, address_space_bytes};
    ::setrlimit(RLIMIT_AS, &small);
    const auto engine = Engine::make();
    if (!engine)
        std::cerr << engine.error().describe() << '\n';
    ::_exit(!engine && engine.error().code == ErrorCode::resource_exhausted ? 0 : 1);
}

TEST(Engine, refuses_settings_out_of_range) {
    EngineSettings none;
    none.places = 0;
    EXPECT_EQ(Engine::make(none).error().code, ErrorCode::invalid_argument);
    EngineSettings huge;
    huge.max_memory_bytes = std::uint64_t{5} << 30;
    EXPECT_THAT(Engine::make(huge).error().message, HasSubstr("max_memory_bytes"));
}

TEST(Engine, says_so_when_the_address_space_is_too_small) {
    if (sanitized)
        GTEST_SKIP() << "a sanitizer's own address space is larger than any limit that would tell";
    // In a child, whose limit can go down; executed anew, because the compiler's threads must not
    // be forked.
    GTEST_FLAG_SET(death_test_style, "threadsafe");
    EXPECT_EXIT(make_an_engine_in(std::uint64_t{8} << 30), testing::ExitedWithCode(0),
                "address space");
}

TEST(Engine, says_why_bytes_are_no_module) {
    EXPECT_EQ(compile("").error().code, ErrorCode::corrupt_data);
    EXPECT_EQ(compile("#!/bin/sh\necho hello\n").error().code, ErrorCode::corrupt_data);
    const auto cut = fixture_module("deeds");
    EXPECT_EQ(compile(std::string_view(cut).substr(0, cut.size() / 2)).error().code,
              ErrorCode::corrupt_data);
}

TEST(Engine, refuses_proposals_that_are_off) {
    const auto refused = compile(fixture_module("two_memories"));
    ASSERT_FALSE(refused);
    EXPECT_THAT(refused.error().message, HasSubstr("multi"));
    EXPECT_EQ(refused.error().message.find('\n'), std::string::npos) << "one line";
}

TEST(Engine, refuses_text_even_if_it_is_correct) {
    EXPECT_EQ(compile("(module)").error().code, ErrorCode::corrupt_data)
        << "the wat feature stays out of the agent";
}

TEST(Engine, loads_from_a_file) {
    const host_runner::tests::TemporaryDirectory folder;
    const auto path = folder / "reactor.cwasm";
    ASSERT_TRUE(write_file_atomic(path, fixture_artifact("reactor")));
    const auto engine = make_engine();
    const auto module = engine.load_file(path);
    ASSERT_TRUE(module) << module.error().describe();
    EXPECT_EQ(module->exports().size(), 2U);
    EXPECT_FALSE(engine.load_file(folder / "absent.cwasm"));
}

TEST(Engine, refuses_to_load_what_it_did_not_make) {
    const auto engine = make_engine();
    EXPECT_EQ(engine.load("").error().code, ErrorCode::corrupt_data);
    EXPECT_EQ(engine.load(std::string(100000, 'x')).error().code, ErrorCode::corrupt_data);
    EXPECT_EQ(engine.load(fixture_module("deeds")).error().code, ErrorCode::corrupt_data)
        << "not compiled";
    auto other = fixture_artifact("deeds");
    const auto at = other.find("48");
    ASSERT_NE(at, std::string::npos);
    EXPECT_EQ(engine.load(std::string_view(other).substr(0, other.size() / 3)).error().code,
              ErrorCode::corrupt_data);
}

TEST(Engine, refuses_a_module_that_needs_more_than_a_place_has) {
    const auto engine = make_engine();
    const auto module = engine.load(fixture_artifact("large_memory"));
    ASSERT_FALSE(module);
    EXPECT_EQ(module.error().code, ErrorCode::unsupported) << module.error().describe();
}

} // namespace
} // namespace host_runner::wasm::tests

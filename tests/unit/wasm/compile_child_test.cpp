// SPDX-License-Identifier: Apache-2.0
#include "host_runner/wasm/compile.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <gmock/gmock.h>

#include "engine_fixture.hpp"
#include "large_module.hpp"

namespace host_runner::wasm::tests {
namespace {

using testing::HasSubstr;

UniqueFd memory_file(std::string_view bytes) {
    UniqueFd fd(::memfd_create("test", MFD_CLOEXEC));
    EXPECT_TRUE(write_all(fd.get(), bytes));
    EXPECT_EQ(::lseek(fd.get(), 0, SEEK_SET), 0);
    return fd;
}

class CompileChild : public testing::Test {
protected:
    CompileChild() {
        if (sanitized)
            limits.memory_bytes = std::uint64_t{1} << 46; // a sanitizer's own address space
    }
    Result<std::string> run(std::string_view module) {
        const auto source = memory_file(module);
        const auto target = memory_file({});
        HR_CHECK(compile_in_child(launcher, {"/proc/self/exe", "compile"}, source.get(),
                                  target.get(), limits));
        EXPECT_EQ(::lseek(target.get(), 0, SEEK_SET), 0);
        return read_all(target.get(), 1 << 24);
    }
    ForkExecLauncher launcher;
    CompileLimits limits;
};

TEST_F(CompileChild, makes_what_the_engine_loads) {
    const auto artifact = run(fixture_module("deeds"));
    ASSERT_TRUE(artifact) << artifact.error().describe();
    const auto engine = make_engine();
    EXPECT_TRUE(engine.load(*artifact));
}

TEST_F(CompileChild, says_why_bytes_are_no_module) {
    const auto refused = run("garbage, and nothing but garbage");
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::corrupt_data);
    EXPECT_THAT(refused.error().message, HasSubstr("Not a module"));
}

TEST_F(CompileChild, refuses_a_module_above_the_limit) {
    limits.module_bytes = 100;
    const auto refused = run(fixture_module("deeds"));
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::resource_exhausted);
    EXPECT_THAT(refused.error().message, HasSubstr("100 bytes"));
}

TEST_F(CompileChild, refuses_code_above_the_limit) {
    limits.artifact_bytes = 1000;
    const auto refused = run(fixture_module("deeds"));
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::resource_exhausted) << refused.error().describe();
}

TEST_F(CompileChild, ends_when_its_processor_time_is_used_up) {
    limits.cpu = std::chrono::seconds(1);
    const auto refused = run(large_module(400, 40000));
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::resource_exhausted) << refused.error().describe();
    EXPECT_THAT(refused.error().message, HasSubstr("processor time"));
}

TEST_F(CompileChild, ends_when_its_memory_is_used_up) {
    if (sanitized)
        GTEST_SKIP() << "a sanitizer needs more address space than any limit that would tell";
    limits.memory_bytes = std::uint64_t{256} << 20;
    const auto refused = run(large_module(8, 2'000'000));
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::resource_exhausted) << refused.error().describe();
    EXPECT_THAT(refused.error().message, HasSubstr("MiB of memory"));
}

TEST_F(CompileChild, is_killed_at_the_wall_limit) {
    limits.wall = std::chrono::seconds(0);
    EXPECT_EQ(run(fixture_module("deeds")).error().code, ErrorCode::timeout);
}

TEST_F(CompileChild, refuses_wrong_arguments) {
    testing::internal::CaptureStderr();
    EXPECT_NE(compile_main({}), 0);
    EXPECT_NE(compile_main(std::vector<std::string>{"1", "2", "3", "many"}), 0);
    EXPECT_NE(compile_main(std::vector<std::string>{"1", "2", "3", "0"}), 0);
    EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("Not a positive number: many"));
}

} // namespace
} // namespace host_runner::wasm::tests

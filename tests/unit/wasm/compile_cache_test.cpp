// SPDX-License-Identifier: Apache-2.0
#include "host_runner/wasm/compile_cache.hpp"

#include <array>
#include <atomic>
#include <thread>

#include <sys/stat.h>

#include <gmock/gmock.h>

#include "engine_fixture.hpp"
#include "fakes/temporary_directory.hpp"

namespace host_runner::wasm::tests {
namespace {

/// Counts the children.
class CountingLauncher final : public ProcessLauncher {
public:
    Result<ChildProcess> launch(const ProcessSpec& spec) override {
        ++launched;
        return real_.launch(spec);
    }
    std::atomic<int> launched = 0;

private:
    ForkExecLauncher real_;
};

class Cache : public testing::Test {
protected:
    CompileCache make() {
        CompileLimits limits;
        if (sanitized)
            limits.memory_bytes = std::uint64_t{1} << 46;
        return {launcher, {"/proc/self/exe", "compile"}, folder / "modules", limits};
    }
    [[nodiscard]] std::string entry_path() const {
        return folder / ("modules/" + compile_key(module) + ".cwasm");
    }
    host_runner::tests::TemporaryDirectory folder;
    CountingLauncher launcher;
    std::string module = fixture_module("reactor");
};

TEST_F(Cache, compiles_a_module_once) {
    const auto first = make().artifact(module);
    ASSERT_TRUE(first) << first.error().describe();
    const auto second = make().artifact(module);
    ASSERT_TRUE(second) << second.error().describe();
    EXPECT_EQ(*first, *second);
    EXPECT_EQ(launcher.launched, 1);
    EXPECT_TRUE(make_engine().load(*second));
}

TEST_F(Cache, compiles_a_module_once_for_all_who_want_it_at_the_same_time) {
    std::array<std::thread, 8> threads;
    for (auto& thread : threads)
        thread = std::thread([this] { EXPECT_TRUE(make().artifact(module)); });
    for (auto& thread : threads)
        thread.join();
    EXPECT_EQ(launcher.launched, 1);
    EXPECT_EQ(list_directory(folder / "modules")->size(), 1U) << "no lock is left";
}

TEST_F(Cache, keeps_its_files_to_itself) {
    ASSERT_TRUE(make().artifact(module));
    struct stat status {};
    ASSERT_EQ(::stat((folder / "modules").c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777U, 0700U);
    ASSERT_EQ(::stat(entry_path().c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777U, 0600U);
    EXPECT_EQ(list_directory(folder / "modules")->size(), 1U) << "no temporary file is left";
}

TEST_F(Cache, makes_a_damaged_entry_anew) {
    const auto first = make().artifact(module);
    ASSERT_TRUE(first) << first.error().describe();
    auto bytes = read_file(entry_path(), 1 << 24).value();
    for (const std::size_t at :
         {std::size_t{0}, std::size_t{10}, bytes.size() / 2, bytes.size() - 1}) {
        auto damaged = bytes;
        damaged[at] = static_cast<char>(damaged[at] ^ 1);
        ASSERT_TRUE(write_file_atomic(entry_path(), damaged));
        const auto again = make().artifact(module);
        ASSERT_TRUE(again) << again.error().describe();
        EXPECT_EQ(*again, *first) << "byte " << at;
    }
    ASSERT_TRUE(write_file_atomic(entry_path(), bytes.substr(0, 20)));
    EXPECT_EQ(make().artifact(module).value(), *first) << "a part of an entry";
    EXPECT_EQ(launcher.launched, 6);
}

TEST_F(Cache, does_not_take_one_module_for_another) {
    EXPECT_NE(compile_key(module), compile_key(fixture_module("deeds")));
    EXPECT_EQ(compile_key(module), compile_key(fixture_module("reactor")));
    EXPECT_EQ(compile_key(module).size(), 64U);
    ASSERT_TRUE(make().artifact(module));
    ASSERT_TRUE(make().artifact(fixture_module("deeds")));
    EXPECT_EQ(launcher.launched, 2);
}

TEST_F(Cache, refuses_a_folder_that_others_can_write_or_read) {
    ASSERT_TRUE(make_directories(folder / "modules", 0755));
    const auto refused = make().artifact(module);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::permission_denied);
    EXPECT_EQ(launcher.launched, 0);
}

TEST_F(Cache, keeps_no_entry_of_a_module_that_does_not_compile) {
    EXPECT_EQ(make().artifact("no module").error().code, ErrorCode::corrupt_data);
    EXPECT_EQ(list_directory(folder / "modules")->size(), 0U);
}

} // namespace
} // namespace host_runner::wasm::tests

// SPDX-License-Identifier: Apache-2.0
#include "host_runner/base/files.hpp"

#include <filesystem>
#include <fstream>

#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "fakes/temporary_directory.hpp"

namespace host_runner {
namespace {

using testing::ElementsAre;
using tests::TemporaryDirectory;

TEST(WriteFileAtomic, replaces_the_bytes_with_exactly_the_mode_asked_for) {
    const TemporaryDirectory dir;
    const mode_t old_mask = ::umask(0777);
    const auto first = write_file_atomic(dir / "state", "one", 0600);
    const auto second = write_file_atomic(dir / "state", "two", 0644);
    ::umask(old_mask);
    ASSERT_TRUE(first && second);
    EXPECT_EQ(read_file(dir / "state", 100).value(), "two");
    struct stat status {};
    ASSERT_EQ(::stat((dir / "state").c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777U, 0644U);
    EXPECT_THAT(list_directory(dir.path()).value(), ElementsAre("state"));
}

TEST(WriteFileAtomic, leaves_the_old_file_and_no_temporary_one_when_it_fails) {
    const TemporaryDirectory dir;
    // A folder in place of the file makes the final rename fail.
    std::filesystem::create_directories(dir / "state/inner");
    const auto result = write_file_atomic(dir / "state", "new");
    ASSERT_FALSE(result);
    EXPECT_THAT(result.error().message, testing::HasSubstr(dir / "state"));
    EXPECT_THAT(list_directory(dir.path()).value(), ElementsAre("state"));
}

TEST(WriteFileAtomic, reports_a_missing_folder) {
    const TemporaryDirectory dir;
    EXPECT_EQ(write_file_atomic(dir / "none/state", "x").error().code, ErrorCode::not_found);
}

TEST(ReadFile, stops_at_the_cap) {
    const TemporaryDirectory dir;
    ASSERT_TRUE(write_file_atomic(dir / "big", std::string(1001, 'x')));
    EXPECT_EQ(read_file(dir / "big", 1000).error().code, ErrorCode::corrupt_data);
    EXPECT_EQ(read_file(dir / "big", 1001).value().size(), 1001U);
}

TEST(RemoveTree, removes_everything_but_never_follows_a_link) {
    const TemporaryDirectory dir;
    std::filesystem::create_directories(dir / "tree/a/b");
    std::filesystem::create_directories(dir / "outside");
    std::ofstream(dir / "outside/kept") << "x";
    std::ofstream(dir / "tree/marker") << "x";
    std::ofstream(dir / "tree/a/b/file") << "x";
    std::filesystem::create_directory_symlink(dir / "outside", dir / "tree/a/link");
    ASSERT_TRUE(remove_tree(dir / "tree", "marker"));
    EXPECT_THAT(list_directory(dir.path()).value(), ElementsAre("outside"));
    EXPECT_TRUE(path_exists(dir / "outside/kept"));
}

TEST(RemoveTree, refuses_a_folder_without_the_marker) {
    const TemporaryDirectory dir;
    std::filesystem::create_directories(dir / "home");
    std::ofstream(dir / "home/thesis") << "x";
    EXPECT_EQ(remove_tree(dir / "home", "marker").error().code, ErrorCode::wrong_state);
    EXPECT_TRUE(path_exists(dir / "home/thesis"));
}

TEST(RemoveTree, refuses_a_link_to_a_marked_folder) {
    const TemporaryDirectory dir;
    std::filesystem::create_directories(dir / "real");
    std::ofstream(dir / "real/marker") << "x";
    std::filesystem::create_directory_symlink(dir / "real", dir / "link");
    EXPECT_FALSE(remove_tree(dir / "link", "marker"));
    EXPECT_TRUE(path_exists(dir / "real/marker"));
}

TEST(FileLock, excludes_another_descriptor_of_the_same_process) {
    const TemporaryDirectory dir;
    auto held = try_lock_file(dir / "lock");
    ASSERT_TRUE(held);
    EXPECT_EQ(try_lock_file(dir / "lock").error().code, ErrorCode::already_exists);
    EXPECT_TRUE(is_file_locked(dir / "lock").value());
    held->reset();
    EXPECT_FALSE(is_file_locked(dir / "lock").value());
    EXPECT_TRUE(try_lock_file(dir / "lock"));
}

TEST(FileLock, ends_with_its_process) {
    const TemporaryDirectory dir;
    const std::string path = dir / "lock";
    std::array<int, 2> ready{};
    ASSERT_EQ(::pipe(ready.data()), 0);
    const pid_t child = ::fork();
    if (child == 0) {
        const auto lock = try_lock_file(path);
        static_cast<void>(!::write(ready[1], lock ? "x" : "-", 1));
        ::pause();
        ::_exit(0);
    }
    char byte = 0;
    ASSERT_EQ(::read(ready[0], &byte, 1), 1);
    EXPECT_EQ(byte, 'x');
    EXPECT_TRUE(is_file_locked(path).value());
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    EXPECT_FALSE(is_file_locked(path).value());
    ::close(ready[0]);
    ::close(ready[1]);
}

TEST(FileLock, takes_a_missing_file_as_free) {
    const TemporaryDirectory dir;
    EXPECT_FALSE(is_file_locked(dir / "none").value());
    EXPECT_FALSE(path_exists(dir / "none"));
}

TEST(Paths, join_parent_and_base) {
    EXPECT_EQ(join_path("a/b", "c"), "a/b/c");
    EXPECT_EQ(join_path("a/", "c"), "a/c");
    EXPECT_EQ(join_path("a", "/c"), "/c");
    EXPECT_EQ(join_path("", "c"), "c");
    EXPECT_EQ(parent_path("a/b/c.yaml"), "a/b");
    EXPECT_EQ(parent_path("c.yaml"), ".");
    EXPECT_EQ(parent_path("/c.yaml"), "/");
    EXPECT_EQ(parent_path("/"), "/");
    EXPECT_EQ(base_name("a/b/c.yaml"), "c.yaml");
    EXPECT_EQ(base_name("a/b/"), "b");
    EXPECT_EQ(base_name("/"), "/");
}

} // namespace
} // namespace host_runner

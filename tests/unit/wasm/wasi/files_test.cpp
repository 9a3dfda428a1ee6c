// SPDX-License-Identifier: Apache-2.0
// Regular files, directories, paths, and the ways out of them that must be closed.
#include <atomic>
#include <set>
#include <thread>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <gmock/gmock.h>

#include "fakes/raw_peer.hpp"
#include "fakes/temporary_directory.hpp"
#include "guest.hpp"
#include "host_runner/base/files.hpp"

namespace host_runner::wasm::wasi::tests {
namespace {

using host_runner::tests::TemporaryDirectory;
using ::testing::HasSubstr;

constexpr std::uint32_t create = 1;
constexpr std::uint32_t directory = 2;
constexpr std::uint32_t exclusive = 4;
constexpr std::uint32_t truncate = 8;
constexpr auto both = Guest::reading | Guest::writing;

Directory opened(const std::string& path, const std::string& name, Access access) {
    auto result = open_directory(path, name, access);
    if (!result)
        throw std::runtime_error(result.error().describe());
    return *std::move(result);
}

/// 3: writable, 4: the same directory read-only. "outside" lies beside it.
class WasiFiles : public ::testing::Test {
protected:
    static constexpr std::uint32_t root = 3;
    static constexpr std::uint32_t read_only = 4;

    WasiFiles() {
        EXPECT_EQ(::mkdir((top_ / "root").c_str(), 0700), 0);
        EXPECT_TRUE(write_file_atomic(top_ / "outside", "secret"));
        EXPECT_TRUE(write_file_atomic(path("file"), "0123456789"));
        EXPECT_EQ(::mkdir(path("dir").c_str(), 0700), 0);
        guest_.emplace(with_files(NullFile{}, NullFile{}, NullFile{},
                                  opened(path(""), "/data", Access::read_write),
                                  opened(path(""), "/ro", Access::read_only)));
    }
    [[nodiscard]] std::string path(const std::string& name) const {
        return top_ / "root/" + name;
    }
    Guest& guest() {
        return *guest_;
    }
    /// The descriptor, which the test needs to go on.
    std::uint32_t must_open(const std::string& name, std::uint64_t rights = Guest::reading,
                            std::uint32_t open_flags = 0, std::uint32_t fd_flags = 0) {
        EXPECT_EQ(guest().open(root, name, rights, open_flags, 1, fd_flags), ok) << name;
        return guest().number();
    }
    std::string contents(const std::string& name) {
        return read_file(path(name), 1000).value_or("?");
    }
    TemporaryDirectory top_;
    std::optional<Guest> guest_;
};

TEST_F(WasiFiles, preopens_have_names) {
    EXPECT_EQ(guest().call("fd_prestat_get", {root, Guest::record}), ok);
    EXPECT_EQ(guest().get<std::uint8_t>(Guest::record), 0);
    EXPECT_EQ(guest().get<std::uint32_t>(Guest::record + 4), 5U);
    EXPECT_EQ(guest().call("fd_prestat_dir_name", {root, Guest::buffer, 5}), ok);
    EXPECT_EQ(guest().get_text(Guest::buffer, 5), "/data");
    EXPECT_EQ(guest().call("fd_prestat_dir_name", {root, Guest::buffer, 4}), nametoolong);
    EXPECT_EQ(guest().call("fd_prestat_get", {5, Guest::record}), badf);
    const auto dir = must_open("dir", Guest::reading, directory);
    EXPECT_EQ(guest().call("fd_prestat_get", {dir, Guest::record}), badf);
    EXPECT_EQ(guest().call("fd_prestat_dir_name", {dir, Guest::buffer, 9}), notdir);
}

TEST_F(WasiFiles, read_write_and_seek) {
    const auto file = must_open("file", both);
    EXPECT_EQ(file, 5U);
    EXPECT_EQ(guest().read(file, 4), ok);
    EXPECT_EQ(guest().got(), "0123");
    EXPECT_EQ(guest().call("fd_tell", {file, Guest::result}), ok);
    EXPECT_EQ(guest().number(), 4U);
    EXPECT_EQ(guest().write(file, "ab"), ok);
    EXPECT_EQ(contents("file"), "0123ab6789");
    EXPECT_EQ(guest().call("fd_seek", {file, static_cast<std::uint64_t>(-1), 2, Guest::result}),
              ok);
    EXPECT_EQ(guest().number(), 9U);
    guest().put_buffer(3);
    EXPECT_EQ(guest().call("fd_pread", {file, Guest::list, 1, 1, Guest::result}), ok);
    EXPECT_EQ(guest().got(), "123");
    guest().put_text(Guest::buffer, "xyz");
    EXPECT_EQ(guest().call("fd_pwrite", {file, Guest::list, 1, 7, Guest::result}), ok);
    EXPECT_EQ(contents("file"), "0123ab6xyz");
    EXPECT_EQ(guest().read(file, 9), ok);
    EXPECT_EQ(guest().got(), "z");
    EXPECT_EQ(guest().read(file, 9), ok);
    EXPECT_EQ(guest().number(), 0U);
    for (const auto* name : {"fd_sync", "fd_datasync"})
        EXPECT_EQ(guest().call(name, {file}), ok);
    EXPECT_EQ(guest().call("fd_advise", {file, 0, 0, 5}), ok);
    EXPECT_EQ(guest().call("fd_allocate", {file, 0, 1}), notsup);
}

TEST_F(WasiFiles, refuse_positions_that_are_none) {
    const auto file = must_open("file", both);
    const auto seek = [&](std::int64_t offset, std::uint32_t whence) {
        return guest().call("fd_seek",
                            {file, static_cast<std::uint64_t>(offset), whence, Guest::result});
    };
    EXPECT_EQ(seek(-1, 0), inval);
    EXPECT_EQ(seek(-11, 2), inval);
    EXPECT_EQ(seek(INT64_MAX, 2), overflow);
    EXPECT_EQ(seek(0, 3), inval);
    EXPECT_EQ(seek(INT64_MIN, 1), inval);
    EXPECT_EQ(seek(INT64_MAX, 0), ok);
    guest().put_buffer(1);
    for (const auto* name : {"fd_pread", "fd_pwrite"})
        EXPECT_EQ(guest().call(name, {file, Guest::list, 1, UINT64_MAX, Guest::result}), inval);
    EXPECT_EQ(guest().call("fd_advise", {file, UINT64_MAX, 0, 0}), inval);
    EXPECT_EQ(guest().call("fd_advise", {file, 0, 0, 6}), inval);
    EXPECT_EQ(guest().call("fd_filestat_set_size", {file, UINT64_MAX}), inval);
}

TEST_F(WasiFiles, append_goes_to_the_end_but_pwrite_does_not) {
    const auto file = must_open("file", both, 0, 1);
    EXPECT_EQ(guest().write(file, "ab"), ok);
    EXPECT_EQ(contents("file"), "0123456789ab");
    EXPECT_EQ(guest().call("fd_tell", {file, Guest::result}), ok);
    EXPECT_EQ(guest().number(), 12U);
    guest().put_text(Guest::buffer, "X");
    guest().put_buffer(1);
    EXPECT_EQ(guest().call("fd_pwrite", {file, Guest::list, 1, 0, Guest::result}), ok);
    EXPECT_EQ(contents("file"), "X123456789ab");
}

TEST_F(WasiFiles, rights_decide_over_reading_and_writing) {
    EXPECT_EQ(guest().write(must_open("file"), "x"), badf);
    EXPECT_EQ(guest().read(must_open("file", Guest::writing), 1), badf);
    EXPECT_EQ(guest().read(must_open("file", 0), 1), badf);
    guest().put_buffer(1);
    EXPECT_EQ(guest().call("fd_pwrite", {5, Guest::list, 1, 0, Guest::result}), badf);
    EXPECT_EQ(guest().call("fd_filestat_set_size", {5, 0}), perm);
    EXPECT_EQ(guest().call("fd_fdstat_get", {5, Guest::record}), ok);
    EXPECT_EQ(guest().get<std::uint8_t>(Guest::record), 4);
    EXPECT_EQ(guest().get<std::uint64_t>(Guest::record + 8) & both, Guest::reading);
}

TEST_F(WasiFiles, open_makes_and_cuts) {
    must_open("new", Guest::writing, create | exclusive);
    EXPECT_EQ(guest().open(root, "new", both, create | exclusive), exist);
    // A link is there already, also one that leads nowhere or out.
    EXPECT_EQ(guest().symlink("../out", root, "out"), ok);
    EXPECT_EQ(guest().open(root, "out", both, create | exclusive), exist);
    EXPECT_EQ(guest().open(root, "missing"), noent);
    EXPECT_EQ(guest().open(root, ""), noent);
    must_open("file", Guest::reading, truncate);
    EXPECT_EQ(contents("file"), "");
    EXPECT_EQ(guest().open(root, "x", both, create | directory), inval);
    EXPECT_EQ(guest().open(root, "x", both, 16), inval);
    EXPECT_EQ(guest().open(root, "file", both, 0, 2), inval);
    EXPECT_EQ(guest().open(root, "file", both, 0, 1, 32), inval);
    EXPECT_EQ(guest().open(root, "file", Guest::reading, directory), notdir);
    EXPECT_EQ(guest().open(root, "file/"), notdir);
    EXPECT_EQ(guest().open(root, "dir", both), isdir);
    EXPECT_EQ(guest().open(root, "x/", both, create), isdir);
    EXPECT_EQ(guest().open(root, "\xc3"), ilseq);
    EXPECT_EQ(guest().open(root, std::string("a\0b", 3)), inval);
    EXPECT_EQ(guest().open(root, std::string(5000, 'a')), nametoolong);
    EXPECT_EQ(guest().open(root, std::string(300, 'a')), nametoolong);
    must_open("file", both, 0, 2 | 8 | 16);
}

TEST_F(WasiFiles, a_full_table_is_mfile) {
    ContextOptions options = with_files(opened(path(""), "/", Access::read_write));
    options.max_open_files = 2;
    Guest small(std::move(options));
    EXPECT_EQ(small.open(0, "file"), ok);
    EXPECT_EQ(small.open(0, "new", both, create), mfile);
    EXPECT_FALSE(path_exists(path("new")));
    EXPECT_EQ(small.call("fd_close", {1}), ok);
    EXPECT_EQ(small.open(0, "file"), ok);
    EXPECT_EQ(small.number(), 1U);
}

TEST_F(WasiFiles, a_bad_result_pointer_opens_nothing) {
    guest().put_text(Guest::text, "new");
    EXPECT_EQ(guest().call("path_open",
                           {root, 1, Guest::text, 3, create, both, both, 0, Guest::memory_bytes}),
              trapped(TrapReason::out_of_bounds));
    EXPECT_FALSE(path_exists(path("new")));
}

TEST_F(WasiFiles, directories_are_no_files) {
    EXPECT_EQ(guest().read(root, 1), isdir);
    EXPECT_EQ(guest().write(root, "x"), badf);
    guest().put_buffer(1);
    EXPECT_EQ(guest().call("fd_pread", {root, Guest::list, 1, 0, Guest::result}), isdir);
    EXPECT_EQ(guest().call("fd_pwrite", {root, Guest::list, 1, 0, Guest::result}), badf);
    EXPECT_EQ(guest().call("fd_seek", {root, 0, 0, Guest::result}), badf);
    EXPECT_EQ(guest().call("fd_tell", {root, Guest::result}), badf);
    EXPECT_EQ(guest().call("fd_advise", {root, 0, 0, 0}), badf);
    EXPECT_EQ(guest().call("fd_sync", {root}), ok);
    EXPECT_EQ(guest().call("fd_filestat_set_size", {root, 0}), badf);
    EXPECT_EQ(guest().call("fd_fdstat_get", {root, Guest::record}), ok);
    EXPECT_EQ(guest().get<std::uint8_t>(Guest::record), 3);
    guest().subscribe(0, 1, root);
    EXPECT_EQ(guest().poll(1), ok);
    EXPECT_EQ(guest().event_errno(), badf);
}

TEST_F(WasiFiles, stat_gives_type_size_and_no_number_of_the_host) {
    EXPECT_EQ(guest().stat(root, "file"), ok);
    EXPECT_EQ(guest().get<std::uint64_t>(Guest::record), 1U);
    EXPECT_EQ(guest().get<std::uint8_t>(Guest::record + 16), 4);
    EXPECT_EQ(guest().get<std::uint64_t>(Guest::record + 24), 1U);
    EXPECT_EQ(guest().get<std::uint64_t>(Guest::record + 32), 10U);
    EXPECT_GT(guest().get<std::uint64_t>(Guest::record + 48), 1'600'000'000'000'000'000U);
    EXPECT_EQ(guest().stat(root, "dir/"), ok);
    EXPECT_EQ(guest().get<std::uint8_t>(Guest::record + 16), 3);
    EXPECT_EQ(guest().stat(root, "file/"), notdir);
    EXPECT_EQ(guest().stat(root, "none"), noent);
    EXPECT_EQ(guest().stat(root, "file", 2), inval);
    EXPECT_EQ(guest().symlink("file", root, "link"), ok);
    EXPECT_EQ(guest().stat(root, "link"), ok);
    EXPECT_EQ(guest().get<std::uint8_t>(Guest::record + 16), 7);
    EXPECT_EQ(guest().stat(root, "link", 1), ok);
    EXPECT_EQ(guest().get<std::uint8_t>(Guest::record + 16), 4);
    EXPECT_EQ(guest().call("fd_filestat_get", {must_open("file"), Guest::record}), ok);
    EXPECT_EQ(guest().get<std::uint64_t>(Guest::record + 32), 10U);
}

TEST_F(WasiFiles, size_and_times_can_be_set) {
    const auto file = must_open("file", both);
    EXPECT_EQ(guest().call("fd_filestat_set_size", {file, 3}), ok);
    EXPECT_EQ(contents("file"), "012");
    EXPECT_EQ(guest().call("fd_filestat_set_times", {file, 5'000'000'007, 6'000'000'008, 5}), ok);
    EXPECT_EQ(guest().stat(root, "file"), ok);
    EXPECT_EQ(guest().get<std::uint64_t>(Guest::record + 40), 5'000'000'007U);
    EXPECT_EQ(guest().get<std::uint64_t>(Guest::record + 48), 6'000'000'008U);
    EXPECT_EQ(guest().call("fd_filestat_set_times", {file, 0, 0, 8}), ok);
    EXPECT_EQ(guest().stat(root, "file"), ok);
    EXPECT_EQ(guest().get<std::uint64_t>(Guest::record + 40), 5'000'000'007U);
    EXPECT_GT(guest().get<std::uint64_t>(Guest::record + 48), 6'000'000'008U);
    for (const auto flags : {3U, 12U, 16U})
        EXPECT_EQ(guest().call("fd_filestat_set_times", {file, 0, 0, flags}), inval);
    EXPECT_EQ(guest().symlink("none", root, "link"), ok);
    const auto set = [&](std::uint32_t fd, std::uint32_t lookup, std::string_view name,
                         std::uint32_t flags) {
        guest().put_text(Guest::text, name);
        return guest().call("path_filestat_set_times",
                            {fd, lookup, Guest::text, name.size(), 1, 1, flags});
    };
    EXPECT_EQ(set(root, 0, "link", 4), ok);
    EXPECT_EQ(set(root, 1, "link", 4), noent);
    EXPECT_EQ(set(root, 0, "file", 3), inval);
    EXPECT_EQ(set(read_only, 0, "file", 4), perm);
}

TEST_F(WasiFiles, names_are_made_moved_and_removed) {
    EXPECT_EQ(guest().on_path("path_create_directory", root, "a"), ok);
    EXPECT_EQ(guest().on_path("path_create_directory", root, "a/b/"), ok);
    EXPECT_EQ(guest().on_path("path_create_directory", root, "a"), exist);
    EXPECT_EQ(guest().on_path("path_create_directory", root, "none/b"), noent);
    EXPECT_EQ(guest().on_path("path_create_directory", root, ""), noent);
    EXPECT_EQ(guest().on_path("path_create_directory", root, "."), exist);
    EXPECT_EQ(guest().on_path("path_create_directory", root, "a/.."), exist);
    EXPECT_EQ(guest().on_path("path_remove_directory", root, "a"), notempty);
    EXPECT_EQ(guest().on_path("path_remove_directory", root, "file"), notdir);
    EXPECT_EQ(guest().on_path("path_remove_directory", root, "a/."), inval);
    EXPECT_EQ(guest().rename(root, "a/b", root, "dir/c/"), ok);
    EXPECT_EQ(guest().on_path("path_remove_directory", root, "a/"), ok);
    EXPECT_EQ(guest().rename(root, "file/", root, "x"), notdir);
    EXPECT_EQ(guest().rename(root, "file", root, "x/"), notdir);
    EXPECT_EQ(guest().rename(root, "none", root, "x"), noent);
    EXPECT_EQ(guest().rename(root, "dir", root, "."), busy);
    EXPECT_EQ(guest().rename(root, "file", root, "dir"), isdir);
    EXPECT_EQ(guest().rename(root, "file", root, "moved"), ok);
    EXPECT_EQ(guest().on_path("path_unlink_file", root, "dir"), isdir);
    EXPECT_EQ(guest().on_path("path_unlink_file", root, "dir/"), isdir);
    EXPECT_EQ(guest().on_path("path_unlink_file", root, "moved/"), notdir);
    EXPECT_EQ(guest().on_path("path_unlink_file", root, "moved"), ok);
    EXPECT_EQ(guest().on_path("path_unlink_file", root, "moved"), noent);
    EXPECT_EQ(guest().on_path("path_unlink_file", root, "\xff"), ilseq);
}

TEST_F(WasiFiles, links_are_made_and_read) {
    EXPECT_EQ(guest().link(root, "file", root, "hard"), ok);
    EXPECT_EQ(guest().link(root, "file", root, "hard"), exist);
    EXPECT_EQ(guest().link(root, "file", root, "other", 1), inval);
    EXPECT_EQ(guest().link(root, "file/", root, "other"), notdir);
    EXPECT_EQ(guest().link(root, "dir", root, "other"), perm);
    EXPECT_EQ(guest().link(root, "file", root, "other/"), noent);
    EXPECT_EQ(guest().symlink("file", root, "soft"), ok);
    EXPECT_EQ(guest().symlink("file", root, "soft"), exist);
    EXPECT_EQ(guest().symlink("/etc", root, "abs"), perm);
    EXPECT_EQ(guest().symlink("", root, "empty"), noent);
    EXPECT_EQ(guest().symlink("file", root, "new/"), noent);
    EXPECT_EQ(guest().readlink(root, "soft"), ok);
    EXPECT_EQ(guest().got(), "file");
    EXPECT_EQ(guest().readlink(root, "soft", 2), ok);
    EXPECT_EQ(guest().got(), "fi");
    EXPECT_EQ(guest().readlink(root, "file"), inval);
    EXPECT_EQ(guest().readlink(root, "none"), noent);
    EXPECT_EQ(guest().open(root, "soft", Guest::reading, 0, 0), loop);
    must_open("soft");
}

TEST_F(WasiFiles, a_read_only_directory_stays_as_it_is) {
    EXPECT_EQ(guest().open(read_only, "file"), ok);
    const auto file = guest().number();
    EXPECT_EQ(guest().write(file, "x"), badf);
    EXPECT_EQ(guest().call("fd_filestat_set_times", {file, 1, 1, 1}), perm);
    EXPECT_EQ(guest().open(read_only, "file", both), perm);
    EXPECT_EQ(guest().open(read_only, "file", Guest::reading, truncate), perm);
    EXPECT_EQ(guest().open(read_only, "new", Guest::reading, create), perm);
    EXPECT_EQ(guest().on_path("path_create_directory", read_only, "new"), perm);
    EXPECT_EQ(guest().on_path("path_remove_directory", read_only, "dir"), perm);
    EXPECT_EQ(guest().on_path("path_unlink_file", read_only, "file"), perm);
    EXPECT_EQ(guest().rename(read_only, "file", root, "x"), perm);
    EXPECT_EQ(guest().rename(root, "file", read_only, "x"), perm);
    EXPECT_EQ(guest().link(read_only, "file", root, "x"), perm);
    EXPECT_EQ(guest().link(root, "file", read_only, "x"), perm);
    EXPECT_EQ(guest().symlink("file", read_only, "x"), perm);
    EXPECT_EQ(guest().open(read_only, "dir", Guest::reading, directory), ok);
    const auto dir = guest().number();
    EXPECT_EQ(guest().on_path("path_create_directory", dir, "new"), perm);
    EXPECT_EQ(contents("file"), "0123456789");
}

TEST_F(WasiFiles, nothing_leads_outside) {
    ASSERT_EQ(::symlink("../outside", path("up").c_str()), 0);
    ASSERT_EQ(::symlink((top_ / "outside").c_str(), path("abs").c_str()), 0);
    ASSERT_EQ(::symlink("..", path("parent").c_str()), 0);
    ASSERT_EQ(::symlink("/proc/self/root", path("magic").c_str()), 0);
    const auto dir = must_open("dir", Guest::reading, directory);
    for (const auto* name :
         {"..", "../outside", "dir/../../outside", "up", "up/", "abs", "/", "/etc/passwd", "parent",
          "parent/", "parent/outside", "./parent/../outside", "magic", "magic/etc/passwd"}) {
        EXPECT_EQ(guest().open(root, name), perm) << name;
        EXPECT_EQ(guest().stat(root, name, 1), perm) << name;
    }
    EXPECT_EQ(guest().open(dir, "../file"), perm);
    for (const auto* name : {"..", "../new", "../new/", "parent/new", "/new", "dir/../../new"}) {
        for (const auto* call :
             {"path_create_directory", "path_remove_directory", "path_unlink_file"})
            EXPECT_EQ(guest().on_path(call, root, name), perm) << call << " " << name;
        EXPECT_EQ(guest().rename(root, "file", root, name), perm) << name;
        EXPECT_EQ(guest().rename(root, name, root, "x"), perm) << name;
        EXPECT_EQ(guest().link(root, "file", root, name), perm) << name;
        EXPECT_EQ(guest().link(root, name, root, "x"), perm) << name;
        EXPECT_EQ(guest().symlink("file", root, name), perm) << name;
        EXPECT_EQ(guest().readlink(root, name), perm) << name;
        EXPECT_EQ(guest().open(root, name, both, create), perm) << name;
    }
    EXPECT_EQ(guest().readlink(root, "abs"), perm);
    EXPECT_EQ(guest().on_path("path_remove_directory", root, "parent/"), notdir);
    EXPECT_EQ(read_file(top_ / "outside", 100).value_or("?"), "secret");
    EXPECT_FALSE(path_exists(top_ / "new"));
}

TEST_F(WasiFiles, a_rename_race_does_not_lead_outside) {
    // "swap" is a directory and a link to what lies outside, by turns.
    ASSERT_EQ(::mkdir((top_ / "beside").c_str(), 0700), 0);
    ASSERT_TRUE(write_file_atomic(top_ / "beside/file", "secret"));
    ASSERT_EQ(::mkdir(path("swap").c_str(), 0700), 0);
    ASSERT_TRUE(write_file_atomic(path("swap/file"), "inside"));
    ASSERT_EQ(::symlink("../beside", path("link").c_str()), 0);
    std::atomic<bool> stop = false;
    std::thread racer([&] {
        while (!stop)
            ::renameat2(AT_FDCWD, path("swap").c_str(), AT_FDCWD, path("link").c_str(),
                        RENAME_EXCHANGE);
    });
    for (int i = 0; i < 500; ++i) {
        if (guest().open(root, "swap/file") == ok) {
            const auto file = guest().number();
            EXPECT_EQ(guest().read(file, 10), ok);
            EXPECT_EQ(guest().got(), "inside");
            EXPECT_EQ(guest().call("fd_close", {file}), ok);
        }
        guest().on_path("path_create_directory", root, "swap/made");
        guest().on_path("path_remove_directory", root, "swap/made");
    }
    stop = true;
    racer.join();
    EXPECT_FALSE(path_exists(top_ / "beside/made"));
}

TEST_F(WasiFiles, devices_fifos_and_sockets_are_refused) {
    ASSERT_EQ(::mkfifo(path("fifo").c_str(), 0600), 0);
    const auto socket = host_runner::tests::listen_on_unix(path("socket"));
    for (const auto* name : {"fifo", "socket"}) {
        EXPECT_EQ(guest().open(root, name), notsup) << name;
        EXPECT_EQ(guest().open(root, name, both, create), notsup) << name;
        EXPECT_EQ(guest().stat(root, name), ok) << name;
    }
    Guest devices(with_files(opened("/dev", "/dev", Access::read_only)));
    EXPECT_EQ(devices.open(0, "null"), notsup);
    EXPECT_EQ(devices.stat(0, "null"), ok);
    EXPECT_EQ(devices.get<std::uint8_t>(Guest::record + 16), 2);
}

TEST_F(WasiFiles, readdir_gives_everything_once_whatever_the_buffer) {
    ASSERT_TRUE(write_file_atomic(path("not-utf8-\xff"), ""));
    for (const auto size : {30U, 64U, 200U, 4096U}) {
        std::multiset<std::string> names;
        std::uint64_t cookie = 0;
        for (int round = 0; round < 100; ++round) {
            ASSERT_EQ(
                guest().call("fd_readdir", {root, Guest::buffer, size, cookie, Guest::result}), ok);
            const auto used = guest().number();
            std::uint32_t at = 0;
            while (at + 24 <= used) {
                const auto length = guest().get<std::uint32_t>(Guest::buffer + at + 16);
                if (at + 24 + length > used)
                    break;
                cookie = guest().get<std::uint64_t>(Guest::buffer + at);
                names.insert(guest().get_text(Guest::buffer + at + 24, length));
                at += 24 + length;
            }
            if (used < size)
                break;
        }
        EXPECT_EQ(names, (std::multiset<std::string>{".", "..", "dir", "file"})) << size;
    }
    EXPECT_EQ(guest().call("fd_readdir", {root, Guest::buffer, 10, UINT64_MAX, Guest::result}),
              inval);
    EXPECT_EQ(guest().call("fd_readdir", {root, Guest::buffer, 5, 0, Guest::result}), ok);
    EXPECT_EQ(guest().number(), 5U);
    guest().let_time_pass();
    EXPECT_EQ(guest().call("fd_readdir", {root, Guest::buffer, 99, 0, Guest::result}),
              trapped(TrapReason::interrupted));
}

TEST(WasiOpenDirectory, says_what_is_wrong) {
    const auto missing = open_directory("/nowhere/at/all", "/", Access::read_only);
    ASSERT_FALSE(missing);
    EXPECT_EQ(missing.error().code, ErrorCode::not_found);
    EXPECT_THAT(missing.error().message, HasSubstr("/nowhere/at/all"));
}

} // namespace
} // namespace host_runner::wasm::wasi::tests

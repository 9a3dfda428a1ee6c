// SPDX-License-Identifier: Apache-2.0
#include "host_runner/instance/logs.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "fakes/temporary_directory.hpp"
#include "host_runner/base/files.hpp"

namespace host_runner::instance {
namespace {

using testing::HasSubstr;

std::string content(const std::string& path) {
    return read_file(path, 1 << 20).value_or("<unreadable>");
}

void write(const std::string& path, const std::string& text) {
    ASSERT_TRUE(write_file_atomic(path, text));
}

TEST(LogRotation, leaves_a_small_log_alone) {
    const tests::TemporaryDirectory folder;
    write(folder / "log", "12345");
    const auto rotated = rotate_if_large(folder / "log", {5, 3});
    ASSERT_TRUE(rotated);
    EXPECT_FALSE(*rotated);
    EXPECT_EQ(content(folder / "log"), "12345");
}

TEST(LogRotation, takes_a_missing_log_as_small) {
    const tests::TemporaryDirectory folder;
    EXPECT_EQ(rotate_if_large(folder / "log").value_or(true), false);
}

TEST(LogRotation, keeps_the_newest_parts_in_order) {
    const tests::TemporaryDirectory folder;
    for (const char* text : {"first", "second", "third"}) {
        write(folder / "log", text);
        ASSERT_TRUE(rotate_if_large(folder / "log", {1, 2}));
    }
    EXPECT_EQ(content(folder / "log"), "");
    EXPECT_EQ(content(folder / "log.1"), "third");
    EXPECT_EQ(content(folder / "log.2"), "second");
    EXPECT_FALSE(path_exists(folder / "log.3"));
}

TEST(LogRotation, lets_a_writer_that_appends_go_on) {
    const tests::TemporaryDirectory folder;
    const auto path = folder / "log";
    const UniqueFd writer(::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600));
    ASSERT_TRUE(write_all(writer.get(), "before"));
    ASSERT_TRUE(rotate_if_large(path, {1, 3}));
    ASSERT_TRUE(write_all(writer.get(), "after"));
    EXPECT_EQ(content(path), "after") << "no hole at its beginning";
    EXPECT_EQ(content(path + ".1"), "before");
}

TEST(LogRotation, does_not_follow_a_link) {
    const tests::TemporaryDirectory folder;
    write(folder / "victim", "precious");
    ASSERT_EQ(::symlink((folder / "victim").c_str(), (folder / "log").c_str()), 0);
    EXPECT_FALSE(rotate_if_large(folder / "log", {1, 3}));
    EXPECT_EQ(content(folder / "victim"), "precious");
}

TEST(BootMarker, names_time_and_instance) {
    EXPECT_EQ(boot_marker(1764041400000, "0123456789ab"),
              "===== boot @ 2025-11-25T03:30:00Z 0123456789ab =====\n");
}

class QemuLogsTest : public testing::Test {
protected:
    void SetUp() override {
        ASSERT_TRUE(make_directories(own_));
    }
    const tests::TemporaryDirectory folder_;
    const std::string own_ = folder_ / "instance";
};

TEST_F(QemuLogsTest, lie_in_the_users_folder_with_links_to_them) {
    const auto logs = open_qemu_logs(folder_.path(), own_, "id1");
    ASSERT_TRUE(logs) << logs.error().describe();
    EXPECT_EQ(logs->stdout_path, folder_ / "qemu_stdout.log");
    ASSERT_TRUE(write_all(logs->stderr_fd.get(), "words"));
    EXPECT_EQ(content(own_ + "/qemu_stderr.log"), "words");
    EXPECT_TRUE(logs->warnings.empty());
}

TEST_F(QemuLogsTest, are_appended_to) {
    write(folder_ / "qemu_stdout.log", "old\n");
    const auto logs = open_qemu_logs(folder_.path(), own_, "id1");
    ASSERT_TRUE(logs);
    ASSERT_TRUE(write_all(logs->stdout_fd.get(), "new\n"));
    EXPECT_EQ(content(folder_ / "qemu_stdout.log"), "old\nnew\n");
}

TEST_F(QemuLogsTest, get_the_id_while_another_run_holds_the_plain_name) {
    const auto first = open_qemu_logs(folder_.path(), own_, "id1");
    ASSERT_TRUE(first);
    const auto second = open_qemu_logs(folder_.path(), own_, "id2");
    ASSERT_TRUE(second);
    EXPECT_EQ(second->stdout_path, folder_ / "qemu_stdout.id2.log");
    EXPECT_EQ(second->stderr_path, folder_ / "qemu_stderr.id2.log");
}

TEST_F(QemuLogsTest, get_the_plain_name_again_after_the_other_run) {
    { ASSERT_TRUE(open_qemu_logs(folder_.path(), own_, "id1")); }
    const auto logs = open_qemu_logs(folder_.path(), own_, "id2");
    ASSERT_TRUE(logs);
    EXPECT_EQ(logs->stdout_path, folder_ / "qemu_stdout.log");
}

TEST_F(QemuLogsTest, go_to_the_instance_folder_instead_of_through_a_link) {
    write(folder_ / "victim", "precious");
    ASSERT_EQ(::symlink((folder_ / "victim").c_str(), (folder_ / "qemu_stdout.log").c_str()), 0);
    const auto logs = open_qemu_logs(folder_.path(), own_, "id1");
    ASSERT_TRUE(logs) << logs.error().describe();
    EXPECT_EQ(logs->stdout_path, own_ + "/qemu_stdout.log");
    ASSERT_EQ(logs->warnings.size(), 1U);
    EXPECT_THAT(logs->warnings[0], HasSubstr("qemu_stdout.log"));
    EXPECT_EQ(content(folder_ / "victim"), "precious");
}

TEST_F(QemuLogsTest, go_to_the_instance_folder_when_the_users_is_missing) {
    const auto logs = open_qemu_logs(folder_ / "nowhere", own_, "id1");
    ASSERT_TRUE(logs) << logs.error().describe();
    EXPECT_EQ(logs->stderr_path, own_ + "/qemu_stderr.log");
    EXPECT_EQ(logs->warnings.size(), 1U);
}

TEST_F(QemuLogsTest, do_not_wait_for_the_reader_of_a_fifo) {
    ASSERT_EQ(::mkfifo((folder_ / "qemu_stdout.log").c_str(), 0600), 0);
    const auto logs = open_qemu_logs(folder_.path(), own_, "id1");
    ASSERT_TRUE(logs) << logs.error().describe();
    EXPECT_EQ(logs->stdout_path, own_ + "/qemu_stdout.log");
}

TEST_F(QemuLogsTest, replace_the_links_of_an_earlier_run) {
    { ASSERT_TRUE(open_qemu_logs(folder_.path(), own_, "id1")); }
    const auto logs = open_qemu_logs(folder_ / "nowhere", own_, "id1");
    ASSERT_TRUE(logs) << logs.error().describe();
    ASSERT_TRUE(write_all(logs->stdout_fd.get(), "own"));
    EXPECT_EQ(content(own_ + "/qemu_stdout.log"), "own");
    EXPECT_EQ(content(folder_ / "qemu_stdout.log"), "");
}

TEST(ReadTail, gives_what_came_after_the_offset) {
    const tests::TemporaryDirectory folder;
    write(folder / "log", "old boot\nnew boot\n");
    EXPECT_EQ(read_tail(folder / "log", 9, 100), "new boot\n");
}

TEST(ReadTail, is_bounded) {
    const tests::TemporaryDirectory folder;
    write(folder / "log", "0123456789");
    EXPECT_EQ(read_tail(folder / "log", 0, 4), "6789");
}

TEST(ReadTail, starts_at_the_beginning_of_a_rotated_log) {
    const tests::TemporaryDirectory folder;
    write(folder / "log", "short");
    EXPECT_EQ(read_tail(folder / "log", 1000, 100), "short");
}

TEST(EventsLogFile, holds_one_json_object_per_line) {
    const tests::TemporaryDirectory folder;
    auto log = EventsLog::open(folder / "events.jsonl");
    ASSERT_TRUE(log);
    ASSERT_TRUE(log->append({1764041400000, "progress", "data disk ready", 1500, 0}));
    ASSERT_TRUE(log->append({1764041401000, "stop_step", "QMP quit", 2500, 10000}));
    EXPECT_EQ(content(folder / "events.jsonl"),
              R"({"time":"2025-11-25T03:30:00Z","kind":"progress","text":"data disk ready",)"
              R"("elapsed_ms":1500})"
              "\n"
              R"({"time":"2025-11-25T03:30:01Z","kind":"stop_step","text":"QMP quit",)"
              R"("elapsed_ms":2500,"limit_ms":10000})"
              "\n");
}

TEST(EventsLogFile, stays_bounded) {
    const tests::TemporaryDirectory folder;
    auto log = EventsLog::open(folder / "events.jsonl");
    ASSERT_TRUE(log);
    const std::string text(64 * kib, 'x');
    for (int i = 0; i < 210; ++i)
        ASSERT_TRUE(log->append({0, "progress", text, 0, 0}));
    const RotationRule rule;
    EXPECT_LE(file_size(folder / "events.jsonl"), rule.max_bytes + 2 * text.size());
    EXPECT_TRUE(path_exists(folder / "events.jsonl.3"));
    EXPECT_FALSE(path_exists(folder / "events.jsonl.4"));
}

TEST(EventsLogFile, survives_bytes_that_are_no_utf8) {
    const tests::TemporaryDirectory folder;
    auto log = EventsLog::open(folder / "events.jsonl");
    ASSERT_TRUE(log);
    EXPECT_TRUE(log->append({0, "progress", "\xff\xfe", 0, 0}));
}

TEST(Printable, disarms_terminal_sequences) {
    EXPECT_EQ(printable("\x1b[2Jhi\r"), "?[2Jhi?");
    EXPECT_EQ(printable("a\xc2\x9b"
                        "b"),
              "a?b");
}

TEST(Printable, keeps_words_of_any_script) {
    EXPECT_EQ(printable("Gr\xc3\xbc\xc3\x9f"
                        "e"),
              "Gr\xc3\xbc\xc3\x9f"
              "e");
}

TEST(Printable, cuts_what_is_too_long) {
    EXPECT_EQ(printable("abcdef", 3), "abc...");
}

TEST(Printable, makes_one_line) {
    EXPECT_EQ(printable("one\ntwo\n"), "one two");
}

} // namespace
} // namespace host_runner::instance

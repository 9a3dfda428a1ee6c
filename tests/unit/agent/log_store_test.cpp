// SPDX-License-Identifier: Apache-2.0
#include "host_runner/agent/log_store.hpp"

#include <array>
#include <thread>

#include <fcntl.h>
#include <unistd.h>

#include <gmock/gmock.h>

#include "fakes/temporary_directory.hpp"
#include "host_runner/base/files.hpp"

namespace host_runner::agent {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;

std::vector<std::string> texts(const std::vector<LogLine>& lines) {
    std::vector<std::string> result;
    for (const auto& line : lines)
        result.push_back(line.service + ":" + line.text);
    return result;
}

TEST(LineSplitter, joins_pieces_and_keeps_the_unfinished_line) {
    LineSplitter splitter;
    EXPECT_THAT(splitter.push("one\ntw"), ElementsAre("one"));
    EXPECT_THAT(splitter.push("o\n\nthr"), ElementsAre("two", ""));
    EXPECT_EQ(splitter.finish(), "thr");
}

TEST(LineSplitter, splits_lines_without_end) {
    LineSplitter splitter;
    const auto lines = splitter.push(std::string(2 * LineSplitter::max_line_bytes + 1, 'x'));
    ASSERT_EQ(lines.size(), 2U);
    EXPECT_EQ(lines[0].size(), LineSplitter::max_line_bytes);
    EXPECT_EQ(splitter.finish(), "x");
}

class LogStoreTest : public testing::Test {
protected:
    tests::TemporaryDirectory folder;
    LogStore store{folder / "log", nullptr};
};

TEST_F(LogStoreTest, keeps_the_order_over_services) {
    store.append("web", "1");
    store.append("db", "2");
    store.append("web", "3");
    EXPECT_THAT(texts(store.lines("", std::nullopt)), ElementsAre("web:1", "db:2", "web:3"));
    EXPECT_THAT(texts(store.lines("web", std::nullopt)), ElementsAre("web:1", "web:3"));
    EXPECT_THAT(texts(store.lines("", 2)), ElementsAre("db:2", "web:3"));
}

TEST_F(LogStoreTest, gives_a_service_with_the_lines_of_its_replicas) {
    store.add_replica("web", "web-1");
    store.add_replica("web", "web-2");
    store.append("web-1", "1");
    store.append("db", "2");
    store.append("web-2", "3");
    EXPECT_THAT(texts(store.lines("web", std::nullopt)), ElementsAre("web-1:1", "web-2:3"));
    EXPECT_THAT(texts(store.lines("web", 1)), ElementsAre("web-2:3"));
    EXPECT_THAT(texts(store.lines("web-2", std::nullopt)), ElementsAre("web-2:3"));
    EXPECT_THAT(texts(store.wait_for_lines("web", 1, 0ms)), ElementsAre("web-2:3"));
    EXPECT_EQ(*read_file(folder / "log/web-2.log", 100), "3\n");
}

TEST_F(LogStoreTest, writes_one_file_per_service) {
    store.append("web", "hello");
    EXPECT_EQ(*read_file(folder / "log/web.log", 100), "hello\n");
}

TEST_F(LogStoreTest, bounds_files_by_rotation) {
    const std::string line(16UL * 1024, 'x');
    for (std::size_t written = 0; written < 3 * LogStore::max_file_bytes; written += line.size())
        store.append("web", line);
    EXPECT_THAT(*list_directory(folder / "log"), ElementsAre("web.log", "web.log.1"));
    for (const auto* name : {"log/web.log", "log/web.log.1"})
        EXPECT_TRUE(read_file(folder / name, LogStore::max_file_bytes + line.size())) << name;
}

TEST_F(LogStoreTest, bounds_memory_by_forgetting_the_oldest_of_that_service_only) {
    store.append("quiet", "still here");
    const std::string line(16UL * 1024, 'x');
    for (std::size_t written = 0; written < 2 * LogStore::max_memory_bytes; written += line.size())
        store.append("loud", line);
    EXPECT_LE(store.lines("loud", std::nullopt).size() * line.size(), LogStore::max_memory_bytes);
    EXPECT_EQ(store.lines("quiet", std::nullopt).size(), 1U);
}

TEST_F(LogStoreTest, wakes_a_follower_for_a_new_line) {
    store.append("web", "old");
    const auto last = store.lines("", std::nullopt).back().number;
    std::thread writer([this] { store.append("web", "new"); });
    EXPECT_THAT(texts(store.wait_for_lines("", last, 60s)), ElementsAre("web:new"));
    writer.join();
}

TEST_F(LogStoreTest, frees_followers_at_the_end) {
    std::thread closer([this] { store.close(); });
    EXPECT_TRUE(store.wait_for_lines("", 0, 60s).empty());
    closer.join();
    EXPECT_TRUE(store.closed());
}

TEST_F(LogStoreTest, reads_a_pipe_to_its_end_with_the_last_unfinished_line) {
    auto loop = EventLoop::create();
    ASSERT_TRUE(loop);
    std::array<int, 2> fds{};
    ASSERT_EQ(::pipe2(fds.data(), O_CLOEXEC), 0);
    UniqueFd writer(fds[1]);
    store.attach(**loop, "web", UniqueFd(fds[0]));
    ASSERT_TRUE(write_all(writer.get(), "one\ntwo"));
    ASSERT_TRUE((*loop)->run_once(10s));
    EXPECT_THAT(texts(store.lines("web", std::nullopt)), ElementsAre("web:one"));
    writer.reset();
    ASSERT_TRUE((*loop)->run_once(10s));
    EXPECT_THAT(texts(store.lines("web", std::nullopt)), ElementsAre("web:one", "web:two"));
}

} // namespace
} // namespace host_runner::agent

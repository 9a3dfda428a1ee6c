// SPDX-License-Identifier: Apache-2.0
#include "host_runner/usernet/program/frame_stream.hpp"

#include <algorithm>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace host_runner::usernet::program {
namespace {

std::string stream_of(const std::vector<std::string>& frames) {
    FrameQueue queue;
    for (const auto& frame : frames)
        queue.push(frame);
    return std::string(queue.front());
}

std::vector<std::string> read(std::string_view bytes, std::size_t step) {
    FrameReader reader;
    std::vector<std::string> frames;
    for (; !bytes.empty(); bytes.remove_prefix(std::min(step, bytes.size())))
        EXPECT_TRUE(reader.feed(bytes.substr(0, step),
                                [&](std::string_view frame) { frames.emplace_back(frame); }));
    return frames;
}

bool accepts(std::string_view bytes) {
    FrameReader reader;
    return reader.feed(bytes, [](std::string_view) {});
}

TEST(FrameStream, carries_a_length_in_network_order_before_each_frame) {
    EXPECT_EQ(stream_of({"ab", "c"}), std::string("\0\0\0\2ab\0\0\0\1c", 11));
}

TEST(FrameStream, gives_the_same_frames_however_it_is_cut) {
    const std::vector<std::string> frames{"a", std::string(1514, 'x'), "bc",
                                          std::string(max_frame_bytes, 'y')};
    const auto bytes = stream_of(frames);
    for (const std::size_t step : {std::size_t{1}, std::size_t{3}, std::size_t{1500}, bytes.size()})
        EXPECT_EQ(read(bytes, step), frames) << step;
}

TEST(FrameStream, is_lost_at_a_length_that_no_frame_has) {
    EXPECT_FALSE(accepts(std::string("\0\0\0\0", 4)));
    EXPECT_FALSE(accepts("\xff\xff\xff\xff"));
    EXPECT_FALSE(accepts(std::string("\0\1\x10\1", 4))) << "one more than the longest";
    EXPECT_TRUE(accepts(std::string("\0\1\x10\0", 4)));
    EXPECT_TRUE(accepts(std::string("\0\0\0", 3)));
}

TEST(FrameQueue, goes_on_where_the_last_write_stopped) {
    FrameQueue queue;
    queue.push("abcdef");
    queue.pop(6);
    EXPECT_EQ(queue.front(), "cdef");
    queue.push("g");
    queue.pop(4);
    EXPECT_EQ(queue.front(), std::string("\0\0\0\1g", 5));
    queue.pop(5);
    EXPECT_TRUE(queue.empty());
}

TEST(FrameQueue, drops_what_a_stopped_guest_would_never_take) {
    FrameQueue queue;
    const std::string frame(65536, 'x');
    for (int i = 0; i < 1000; ++i)
        queue.push(frame);
    EXPECT_LE(queue.front().size(), FrameQueue::max_bytes);
    EXPECT_GT(queue.front().size(), FrameQueue::max_bytes / 2);
}

} // namespace
} // namespace host_runner::usernet::program

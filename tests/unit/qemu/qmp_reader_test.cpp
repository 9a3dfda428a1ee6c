// SPDX-License-Identifier: Apache-2.0
#include "host_runner/qemu/qmp_reader.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace host_runner::qemu {
namespace {

using testing::HasSubstr;
using testing::SizeIs;

std::string nested(int depth) {
    const auto levels = static_cast<std::size_t>(depth);
    return R"({"return": )" + std::string(levels, '[') + std::string(levels, ']') + "}\n";
}

TEST(QmpReader, tells_the_four_kinds_of_message_apart) {
    QmpReader reader;
    const auto messages =
        reader.feed("{\"QMP\": {\"version\": {}, \"capabilities\": [\"oob\"]}}\r\n"
                    "{\"return\": {\"status\": \"running\"}, \"id\": 7}\r\n"
                    "{\"id\": 8, \"error\": {\"class\": \"GenericError\", \"desc\": \"no\"}}\r\n"
                    "{\"event\": \"STOP\", \"timestamp\": {\"seconds\": 1}}\r\n");
    ASSERT_TRUE(messages) << messages.error().describe();
    ASSERT_THAT(*messages, SizeIs(4));
    EXPECT_EQ(messages->at(0).kind, QmpMessage::Kind::greeting);
    EXPECT_EQ(messages->at(1).kind, QmpMessage::Kind::reply);
    EXPECT_EQ(messages->at(1).id, 7U);
    EXPECT_EQ(messages->at(1).json, R"({"status":"running"})");
    EXPECT_EQ(messages->at(2).kind, QmpMessage::Kind::error);
    EXPECT_EQ(messages->at(2).id, 8U);
    EXPECT_EQ(messages->at(2).name, "no");
    EXPECT_EQ(messages->at(3).kind, QmpMessage::Kind::event);
    EXPECT_EQ(messages->at(3).name, "STOP");
    EXPECT_EQ(messages->at(3).json, "{}");
}

TEST(QmpReader, joins_a_message_that_comes_byte_by_byte) {
    QmpReader reader;
    std::vector<QmpMessage> all;
    for (const char c : std::string("{\"return\":[1,2]}\r\n")) {
        const auto messages = reader.feed(std::string_view(&c, 1));
        ASSERT_TRUE(messages);
        all.insert(all.end(), messages->begin(), messages->end());
    }
    ASSERT_THAT(all, SizeIs(1));
    EXPECT_EQ(all[0].json, "[1,2]");
}

TEST(QmpReader, keeps_the_start_of_the_next_message) {
    QmpReader reader;
    EXPECT_THAT(reader.feed("{\"return\":1}\n{\"ret").value(), SizeIs(1));
    EXPECT_THAT(reader.feed("urn\":2}\n").value(), SizeIs(1));
}

TEST(QmpReader, skips_empty_lines) {
    QmpReader reader;
    EXPECT_THAT(reader.feed("\r\n \n\n").value(), SizeIs(0));
}

TEST(QmpReader, refuses_what_is_not_json) {
    EXPECT_EQ(QmpReader().feed("SSH-2.0-OpenSSH_9.2\r\n").error().code, ErrorCode::corrupt_data);
    EXPECT_EQ(QmpReader().feed(std::string_view("\0\xff\xfe\n", 4)).error().code,
              ErrorCode::corrupt_data);
}

TEST(QmpReader, refuses_json_that_is_no_qmp) {
    EXPECT_FALSE(QmpReader().feed("[1]\n"));
    EXPECT_FALSE(QmpReader().feed("{\"status\": \"running\"}\n"));
}

TEST(QmpReader, takes_64_levels_and_no_more) {
    EXPECT_TRUE(QmpReader().feed(nested(QmpReader::max_depth - 1)));
    const auto error = QmpReader().feed(nested(QmpReader::max_depth + 1)).error();
    EXPECT_EQ(error.code, ErrorCode::corrupt_data);
    EXPECT_THAT(error.message, HasSubstr("64 levels"));
}

TEST(QmpReader, a_hundred_thousand_levels_end_in_an_error_too) {
    EXPECT_EQ(QmpReader().feed(nested(100'000)).error().code, ErrorCode::corrupt_data);
}

TEST(QmpReader, takes_a_message_of_its_cap_and_none_above) {
    const std::string start = R"({"return":")";
    const std::string end = "\"}";
    const auto message = [&](std::size_t size) {
        return start + std::string(size - start.size() - end.size(), 'x') + end;
    };
    EXPECT_TRUE(QmpReader().feed(message(QmpReader::max_message_bytes) + "\n"));
    const auto error = QmpReader().feed(message(QmpReader::max_message_bytes + 1)).error();
    EXPECT_EQ(error.code, ErrorCode::corrupt_data);
    EXPECT_THAT(error.message, HasSubstr("16 MiB"));
}

TEST(QmpReader, ids_of_other_types_belong_to_no_command) {
    EXPECT_FALSE(QmpReader().feed("{\"return\":{},\"id\":\"x\"}\n").value().at(0).id);
    EXPECT_FALSE(QmpReader().feed("{\"return\":{},\"id\":-1}\n").value().at(0).id);
}

TEST(QmpReader, an_error_without_a_description_is_taken) {
    EXPECT_EQ(QmpReader().feed("{\"error\":[]}\n").value().at(0).name, "");
}

} // namespace
} // namespace host_runner::qemu

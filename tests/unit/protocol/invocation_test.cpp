// SPDX-License-Identifier: Apache-2.0
#include "host_runner/protocol/invocation.hpp"

#include <gmock/gmock.h>

namespace host_runner::protocol {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;

const std::string hello = "0123456789abcdef";

TEST(Frames, look_as_the_protocol_says) {
    EXPECT_EQ(encode_frame({FrameKind::input, 0x0807060504030201, "abc"}),
              std::string("HRIV\x01\x05\x01\x02\x03\x04\x05\x06\x07\x08\x03\x00\x00\x00"
                          "abc",
                          frame_header_bytes + 3));
}

TEST(Frames, are_read_again_however_they_are_cut) {
    const auto bytes =
        encode_frame({FrameKind::request, 7, "one"}) + encode_frame({FrameKind::output, 8, ""}) +
        encode_frame({FrameKind::result, 9, std::string(max_frame_payload_bytes, 'x')});
    for (const std::size_t piece : {std::size_t{1}, std::size_t{17}, bytes.size()}) {
        FrameReader reader;
        std::string again;
        for (std::size_t at = 0; at < bytes.size(); at += piece) {
            reader.push(std::string_view(bytes).substr(at, piece));
            for (auto frame = reader.next(); frame && *frame; frame = reader.next())
                again += encode_frame(**frame);
        }
        EXPECT_EQ(again, bytes) << piece;
    }
}

TEST(Frames, of_another_form_are_refused) {
    const auto good = encode_frame({FrameKind::input, 1, "abc"});
    const auto refuses = [](const std::string& bytes, const std::string& why) {
        FrameReader reader;
        reader.push(bytes);
        const auto frame = reader.next();
        ASSERT_FALSE(frame) << why;
        EXPECT_THAT(frame.error().message, HasSubstr(why));
        EXPECT_FALSE(decode_frame(bytes));
    };
    auto bytes = good;
    bytes[0] = 'X';
    refuses(bytes, "no frame");
    bytes = good;
    bytes[4] = 2;
    refuses(bytes, "version 2");
    for (const char kind : {'\0', '\x0e'}) {
        bytes = good;
        bytes[5] = kind;
        refuses(bytes, "kind");
    }
    bytes = good;
    bytes[16] = 1; // 64 KiB and 3 bytes
    refuses(bytes, "65539");
    EXPECT_FALSE(decode_frame(good.substr(0, good.size() - 1)));
    EXPECT_FALSE(decode_frame(good + "x"));
    EXPECT_FALSE(decode_frame("HRIV"));
    ASSERT_TRUE(decode_frame(good));
    EXPECT_EQ(decode_frame(good)->payload, "abc");
}

TEST(FrameReader, finds_the_ready_of_its_own_hello) {
    const std::string other_hello = "fedcba9876543210";
    const auto ready = encode_frame({FrameKind::ready, 0, hello + "{}"});
    const auto bytes = "rest of a frame HRIV" + encode_frame({FrameKind::output, 3, "old"}) +
                       encode_frame({FrameKind::ready, 0, other_hello + "{}"}) + "HRIV\x01" +
                       ready + encode_frame({FrameKind::output, 1, "new"});
    for (const std::size_t piece : {std::size_t{1}, std::size_t{5}, bytes.size()}) {
        FrameReader reader;
        bool found = false;
        for (std::size_t at = 0; at < bytes.size(); at += piece) {
            reader.push(std::string_view(bytes).substr(at, piece));
            found = found || reader.skip_to_ready(hello);
        }
        ASSERT_TRUE(found) << piece;
        const auto first = reader.next();
        ASSERT_TRUE(first && *first);
        EXPECT_EQ((*first)->payload, hello + "{}");
        const auto second = reader.next();
        ASSERT_TRUE(second && *second);
        EXPECT_EQ((*second)->payload, "new");
    }
}

TEST(InvokeRequest, comes_back_as_it_was) {
    InvokeRequest request;
    request.function = "greet";
    request.arguments = {"two words", ""};
    request.environment = {{"A", "b=c"}, {"EMPTY", ""}};
    request.timeout = std::chrono::milliseconds(1500);
    request.output_bytes = 0;
    const auto json = encode_invoke_request(request);
    ASSERT_TRUE(json);
    const auto again = decode_invoke_request(*json);
    ASSERT_TRUE(again) << again.error().describe();
    EXPECT_EQ(again->function, "greet");
    EXPECT_THAT(again->arguments, ElementsAre("two words", ""));
    EXPECT_THAT(again->environment, ElementsAre(Pair("A", "b=c"), Pair("EMPTY", "")));
    EXPECT_EQ(again->timeout, request.timeout);
    EXPECT_EQ(again->output_bytes, 0U);
}

TEST(InvokeRequest, is_refused_where_it_is_not_understood) {
    for (const auto* json :
         {"", "[]", "{}", R"({"function":"f","arguments":[],"environment":{}})",
          R"({"function":"f","arguments":[1],"environment":{},"timeout_ms":0})",
          R"({"function":"f","arguments":[],"environment":{"A":1},"timeout_ms":0})",
          R"({"function":"f","arguments":[],"environment":{},"timeout_ms":-1})",
          R"({"function":"f","arguments":[],"environment":{},"timeout_ms":0,"memory":1})"})
        EXPECT_FALSE(decode_invoke_request(json)) << json;
}

TEST(InvokeRequest, must_fit_into_a_frame) {
    InvokeRequest request;
    request.arguments = {std::string(max_frame_payload_bytes, 'x')};
    EXPECT_EQ(encode_invoke_request(request).error().code, ErrorCode::invalid_argument);
    request.arguments.assign(max_call_arguments + 1, "");
    EXPECT_EQ(encode_invoke_request(request).error().code, ErrorCode::invalid_argument);
    request.arguments.clear();
    for (std::size_t i = 0; i <= max_call_variables; ++i)
        request.environment[std::to_string(i)] = "";
    EXPECT_EQ(encode_invoke_request(request).error().code, ErrorCode::invalid_argument);
}

TEST(InvokeResult, comes_back_as_it_was) {
    InvokeResult result;
    result.status = CallStatus::trap;
    result.code = 0;
    result.message = "why";
    result.output_bytes = 1;
    result.error_output_bytes = 2;
    result.truncated = true;
    result.duration = std::chrono::microseconds(3);
    result.memory_peak_bytes = 4;
    const auto again = decode_invoke_result(encode_invoke_result(result));
    ASSERT_TRUE(again) << again.error().describe();
    EXPECT_EQ(again->status, CallStatus::trap);
    EXPECT_EQ(again->message, "why");
    EXPECT_EQ(again->output_bytes, 1U);
    EXPECT_EQ(again->error_output_bytes, 2U);
    EXPECT_TRUE(again->truncated);
    EXPECT_EQ(again->duration.count(), 3);
    EXPECT_EQ(again->memory_peak_bytes, 4U);
}

TEST(InvokeResult, fits_into_a_frame_whatever_its_message_is) {
    InvokeResult result;
    result.message = std::string(std::size_t{1} << 20U, '\x01');
    EXPECT_LE(encode_invoke_result(result).size(), max_frame_payload_bytes);
}

TEST(InvokeResult, of_a_status_that_is_not_known_is_refused) {
    EXPECT_FALSE(decode_invoke_result(R"({"status":"exploded"})"));
    EXPECT_FALSE(decode_invoke_result(R"({"status":"exit","code":256})"));
    EXPECT_FALSE(decode_invoke_result("{}"));
}

TEST(Room, is_four_bytes) {
    EXPECT_EQ(decode_room(encode_room(0x01020304)).value_or(0), 0x01020304U);
    EXPECT_FALSE(decode_room("123"));
}

} // namespace
} // namespace host_runner::protocol

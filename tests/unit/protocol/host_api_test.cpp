// SPDX-License-Identifier: Apache-2.0
#include "host_runner/protocol/host_api.hpp"

#include <gmock/gmock.h>

namespace host_runner::protocol {
namespace {

using ::testing::HasSubstr;

TEST(HostApiEvent, comes_back_as_it_was_encoded) {
    const auto event = decode_event(encode_event({"boot.progress", "a \"quoted\"\nline"}));
    ASSERT_TRUE(event) << event.error().describe();
    EXPECT_EQ(event->name, "boot.progress");
    EXPECT_EQ(event->payload, "a \"quoted\"\nline");
}

TEST(HostApiEvent, may_have_members_that_we_do_not_know) {
    const auto event = decode_event(R"({"event":"x","payload":"y","extra":{"a":[1]}})");
    ASSERT_TRUE(event) << event.error().describe();
    EXPECT_EQ(event->payload, "y");
}

TEST(HostApiEvent, may_have_a_payload_over_the_cap_so_that_it_can_be_answered) {
    EXPECT_TRUE(decode_event(encode_event({"x", std::string(100'000, 'a')})));
}

TEST(HostApiEvent, needs_a_name) {
    const auto event = decode_event(R"({"payload":"y"})");
    ASSERT_FALSE(event);
    EXPECT_EQ(event.error().code, ErrorCode::invalid_argument);
    EXPECT_THAT(event.error().message, HasSubstr("event"));
}

TEST(HostApiEvent, refuses_a_name_over_the_cap) {
    EXPECT_FALSE(decode_event(encode_event({std::string(max_event_name_bytes + 1, 'a'), ""})));
}

TEST(HostApiEvent, refuses_a_payload_that_is_no_text) {
    const auto event = decode_event(R"({"event":"x","payload":{}})");
    ASSERT_FALSE(event);
    EXPECT_THAT(event.error().message, HasSubstr("'payload'"));
}

TEST(HostApiEvent, refuses_what_is_no_json) {
    EXPECT_FALSE(decode_event("event=x"));
}

TEST(HostApiEvent, refuses_deep_nesting) {
    EXPECT_FALSE(decode_event(R"({"event":"x","extra":)" + std::string(100'000, '[')));
}

TEST(HostApiEvent, refuses_bytes_that_are_not_utf8) {
    EXPECT_FALSE(decode_event("{\"event\":\"\xff\"}"));
}

TEST(HostApiEvent, is_encoded_with_bytes_that_are_not_utf8_replaced) {
    const auto event = decode_event(encode_event({"x", "a\xff"}));
    ASSERT_TRUE(event) << event.error().describe();
    EXPECT_EQ(event->payload, "a\xEF\xBF\xBD");
}

TEST(HostApiInfo, comes_back_as_it_was_encoded) {
    const auto info = decode_host_info(encode_host_info({"web", "1.2.3"}));
    ASSERT_TRUE(info) << info.error().describe();
    EXPECT_EQ(info->name, "web");
    EXPECT_EQ(info->version, "1.2.3");
}

TEST(HostApiInfo, refuses_more_than_its_cap) {
    EXPECT_FALSE(decode_host_info(encode_host_info({std::string(5000, 'a'), ""})));
}

TEST(HostApiSealingKey, takes_hex_in_both_cases) {
    const auto quote = decode_sealing_key_request(R"({"quote":"00aAfF"})");
    ASSERT_TRUE(quote) << quote.error().describe();
    EXPECT_EQ(*quote, "00aAfF");
}

TEST(HostApiSealingKey, takes_a_quote_of_the_greatest_size) {
    EXPECT_TRUE(decode_sealing_key_request("{\"quote\":\"" + std::string(max_quote_hex_bytes, '0') +
                                           "\"}"));
}

TEST(HostApiSealingKey, refuses_a_quote_over_the_cap) {
    EXPECT_FALSE(decode_sealing_key_request("{\"quote\":\"" +
                                            std::string(max_quote_hex_bytes + 2, '0') + "\"}"));
}

class HostApiBadQuote : public ::testing::TestWithParam<const char*> {};

TEST_P(HostApiBadQuote, is_refused) {
    const auto quote = decode_sealing_key_request(GetParam());
    ASSERT_FALSE(quote);
    EXPECT_EQ(quote.error().code, ErrorCode::invalid_argument);
}

INSTANTIATE_TEST_SUITE_P(HostApiSealingKey, HostApiBadQuote,
                         ::testing::Values("", "{}", "null", "[]", R"({"quote":""})",
                                           R"({"quote":"abc"})", R"({"quote":"0g"})",
                                           R"({"quote":1})"));

TEST(HostApiError, is_an_object_with_the_text) {
    EXPECT_EQ(encode_error("no \"key\""), R"({"error":"no \"key\""})");
}

} // namespace
} // namespace host_runner::protocol

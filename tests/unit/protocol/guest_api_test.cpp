// SPDX-License-Identifier: Apache-2.0
#include "host_runner/protocol/guest_api.hpp"

#include <limits>

#include <fmt/format.h>
#include <gmock/gmock.h>

namespace host_runner::protocol {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(GuestInfo, comes_back_as_it_was_encoded) {
    const GuestInfo sent{"1.0", "aa", "bb", "cc", "dd", "dev", "plain"};
    const auto info = decode_guest_info(encode_guest_info(sent));
    ASSERT_TRUE(info) << info.error().describe();
    EXPECT_EQ(info->version, sent.version);
    EXPECT_EQ(info->app_id, sent.app_id);
    EXPECT_EQ(info->instance_id, sent.instance_id);
    EXPECT_EQ(info->compose_hash, sent.compose_hash);
    EXPECT_EQ(info->boot_id, sent.boot_id);
    EXPECT_EQ(info->flavour, sent.flavour);
    EXPECT_EQ(info->data_disk, sent.data_disk);
}

TEST(GuestInfo, may_come_from_dstack_with_other_members) {
    const auto info =
        decode_guest_info(R"({"version":"0.5.3","app_id":"aa","tcb_info":"{}","device_id":null})");
    ASSERT_TRUE(info) << info.error().describe();
    EXPECT_EQ(info->app_id, "aa");
    EXPECT_EQ(info->boot_id, "");
}

TEST(GuestInfo, refuses_a_member_of_another_type) {
    const auto info = decode_guest_info(R"({"version":5})");
    ASSERT_FALSE(info);
    EXPECT_EQ(info.error().code, ErrorCode::invalid_argument);
    EXPECT_THAT(info.error().message, HasSubstr("'version'"));
}

TEST(SystemInfo, comes_back_as_it_was_encoded) {
    SystemInfo sent;
    sent.os_name = "Debian";
    sent.kernel_version = "6.16";
    sent.num_cpus = 4;
    sent.total_memory = std::uint64_t{1} << 40U;
    sent.uptime = 77;
    sent.loadavg_one = 150;
    sent.disks = {{"vdb", "/data", 1000, 400}};
    const auto info = decode_system_info(encode_system_info(sent));
    ASSERT_TRUE(info) << info.error().describe();
    EXPECT_EQ(info->os_name, "Debian");
    EXPECT_EQ(info->kernel_version, "6.16");
    EXPECT_EQ(info->num_cpus, 4U);
    EXPECT_EQ(info->total_memory, std::uint64_t{1} << 40U);
    EXPECT_EQ(info->uptime, 77U);
    EXPECT_EQ(info->loadavg_one, 150U);
    ASSERT_EQ(info->disks.size(), 1U);
    EXPECT_EQ(info->disks[0].mount_point, "/data");
    EXPECT_EQ(info->disks[0].free_size, 400U);
}

TEST(SystemInfo, refuses_a_number_out_of_range) {
    const auto info = decode_system_info(R"({"num_cpus":4294967296})");
    ASSERT_FALSE(info);
    EXPECT_THAT(info.error().message, HasSubstr("'num_cpus'"));
}

TEST(SystemInfo, refuses_a_negative_size) {
    EXPECT_FALSE(decode_system_info(R"({"total_memory":-1})"));
}

TEST(SystemInfo, refuses_a_fraction) {
    EXPECT_FALSE(decode_system_info(R"({"uptime":1.5})"));
}

TEST(SystemInfo, refuses_disks_over_the_cap) {
    std::string disks = "{}";
    for (int i = 0; i < 64; ++i)
        disks += ",{}";
    EXPECT_FALSE(decode_system_info("{\"disks\":[" + disks + "]}"));
}

TEST(ServiceStatusList, comes_back_as_it_was_encoded) {
    const auto services = decode_services(
        encode_services({{"web", "running", 12, std::nullopt, 2, "ff", "ee"},
                         {"job", "exited", 0, 3, 0, "", ""},
                         {"api-2", "running", 13, std::nullopt, 0, "aa", "", "api"}}));
    ASSERT_TRUE(services) << services.error().describe();
    ASSERT_EQ(services->size(), 3U);
    EXPECT_EQ((*services)[0].replica_of, "");
    EXPECT_EQ((*services)[2].replica_of, "api");
    EXPECT_EQ((*services)[0].name, "web");
    EXPECT_EQ((*services)[0].state, "running");
    EXPECT_EQ((*services)[0].pid, 12);
    EXPECT_EQ((*services)[0].exit_code, std::nullopt);
    EXPECT_EQ((*services)[0].restarts, 2U);
    EXPECT_EQ((*services)[0].program_sha256, "ff");
    EXPECT_EQ((*services)[0].certificate_sha256, "ee");
    EXPECT_EQ((*services)[1].certificate_sha256, "");
    EXPECT_EQ((*services)[1].exit_code, 3);
}

TEST(ServiceStatusList, keeps_what_a_module_counted) {
    ServiceStatus status;
    status.name = "web";
    status.counters = {{"request", std::numeric_limits<std::uint64_t>::max()}, {"trapped", 0}};
    const auto services = decode_services(encode_services({status, {}}));
    ASSERT_TRUE(services) << services.error().describe();
    EXPECT_EQ((*services)[0].counters, status.counters);
    EXPECT_TRUE((*services)[1].counters.empty());
}

TEST(ServiceStatusList, refuses_counters_that_are_none) {
    std::string many;
    for (std::size_t i = 0; i < 65; ++i)
        many += fmt::format(R"({}"{}":1)", i == 0 ? "" : ",",
                            std::string(1 + i / 26, static_cast<char>('a' + i % 26)));
    for (const auto& counters :
         {std::string("[1]"), std::string("1"), std::string(R"({"request":-1})"),
          std::string(R"({"request":1.5})"), std::string(R"({"request":"1"})"),
          std::string(R"({"":1})"), std::string(R"({"\u001b[31m":1})"), "{" + many + "}",
          R"({")" + std::string(65, 'a') + R"(":1})"})
        EXPECT_FALSE(
            decode_services(fmt::format(R"({{"services":[{{"counters":{}}}]}})", counters)))
            << counters;
}

TEST(ServiceStatusList, refuses_items_that_are_no_objects) {
    EXPECT_FALSE(decode_services(R"({"services":[1]})"));
}

TEST(LogsRequest, comes_back_as_it_was_encoded) {
    const auto request = decode_logs_request(encode_logs_request({"web", true, 10}));
    ASSERT_TRUE(request) << request.error().describe();
    EXPECT_EQ(request->service, "web");
    EXPECT_TRUE(request->follow);
    EXPECT_EQ(request->tail, 10U);
}

TEST(LogsRequest, asks_for_everything_when_empty) {
    const auto request = decode_logs_request("");
    ASSERT_TRUE(request) << request.error().describe();
    EXPECT_EQ(request->service, "");
    EXPECT_FALSE(request->follow);
    EXPECT_EQ(request->tail, std::nullopt);
}

TEST(ExecRequest, comes_back_as_it_was_encoded) {
    const auto request = decode_exec_request(
        encode_exec_request({{"cat", "-"}, {{"A", "b"}}, std::string("\0\xff\n", 3)}));
    ASSERT_TRUE(request) << request.error().describe();
    EXPECT_THAT(request->argv, ElementsAre("cat", "-"));
    EXPECT_EQ(request->environment.at("A"), "b");
    EXPECT_EQ(request->stdin_bytes, std::string("\0\xff\n", 3));
}

TEST(ExecRequest, needs_a_command) {
    EXPECT_FALSE(decode_exec_request(R"({"argv":[]})"));
}

TEST(ExecRequest, refuses_an_argument_that_is_no_text) {
    EXPECT_FALSE(decode_exec_request(R"({"argv":["a",1]})"));
}

TEST(ExecRequest, refuses_a_variable_that_is_no_text) {
    EXPECT_FALSE(decode_exec_request(R"({"argv":["a"],"environment":{"A":1}})"));
}

TEST(ExecRequest, refuses_input_that_is_no_base64) {
    EXPECT_FALSE(decode_exec_request(R"({"argv":["a"],"stdin":"*"})"));
}

TEST(StreamItem, is_one_line) {
    const auto line = encode_stream_item({StreamItem::Kind::out, "web", "a\nb\n", 0});
    EXPECT_EQ(line.find('\n'), line.size() - 1);
}

TEST(StreamItem, carries_any_bytes) {
    const std::string bytes("\0\xff\n", 3);
    const auto item =
        decode_stream_item(encode_stream_item({StreamItem::Kind::err, "web", bytes, 0}));
    ASSERT_TRUE(item) << item.error().describe();
    EXPECT_EQ(item->kind, StreamItem::Kind::err);
    EXPECT_EQ(item->service, "web");
    EXPECT_EQ(item->bytes, bytes);
}

TEST(StreamItem, carries_an_exit_code) {
    const auto item = decode_stream_item(encode_stream_item({StreamItem::Kind::exit, "", "", 137}));
    ASSERT_TRUE(item) << item.error().describe();
    EXPECT_EQ(item->kind, StreamItem::Kind::exit);
    EXPECT_EQ(item->exit_code, 137);
}

TEST(StreamItem, carries_an_errors_text) {
    const auto item =
        decode_stream_item(encode_stream_item({StreamItem::Kind::error, "", "no such file", 0}));
    ASSERT_TRUE(item) << item.error().describe();
    EXPECT_EQ(item->kind, StreamItem::Kind::error);
    EXPECT_EQ(item->bytes, "no such file");
}

TEST(StreamItem, may_be_a_sign_of_life) {
    const auto item =
        decode_stream_item(encode_stream_item({StreamItem::Kind::keep_alive, "", "", 0}));
    ASSERT_TRUE(item) << item.error().describe();
    EXPECT_EQ(item->kind, StreamItem::Kind::keep_alive);
}

TEST(StreamItem, refuses_a_kind_that_we_do_not_know) {
    const auto item = decode_stream_item(R"({"kind":"other"})");
    ASSERT_FALSE(item);
    EXPECT_THAT(item.error().message, HasSubstr("'kind'"));
}

} // namespace
} // namespace host_runner::protocol

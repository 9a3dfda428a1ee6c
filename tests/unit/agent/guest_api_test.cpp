// SPDX-License-Identifier: Apache-2.0
#include "host_runner/agent/guest_api.hpp"

#include <thread>

#include <gmock/gmock.h>

#include "fakes/temporary_directory.hpp"
#include "host_runner/base/process.hpp"

namespace host_runner::agent {
namespace {

using namespace std::chrono_literals;
using protocol::StreamItem;
using testing::HasSubstr;

class GuestApiTest : public testing::Test {
protected:
    void SetUp() override {
        context.state = &state;
        context.logs = &logs;
        context.shut_down = [this] {
            ++shutdowns;
        };
        context.exec_environment = {{"PATH", "/usr/bin:/bin"}, {"WHO", "agent"}};
        context.keep_alive = 5s;
    }
    net::HttpResponse ask(const std::string& method) {
        net::HttpRequest request;
        request.method = "POST";
        request.path = "/api/" + method;
        request.body = "{}";
        return answer_guest_request(context, request);
    }
    /// Collects items and ends the stream when `is_last` says so.
    std::vector<StreamItem> stream(void (*function)(const GuestApiContext&, const net::HttpRequest&,
                                                    const net::ChunkWriter&),
                                   const std::string& body,
                                   const std::function<bool(const StreamItem&)>& is_last) {
        net::HttpRequest request;
        request.body = body;
        std::vector<StreamItem> items;
        function(context, request, [&](std::string_view bytes) {
            auto item = protocol::decode_stream_item(bytes.substr(0, bytes.size() - 1));
            EXPECT_TRUE(item);
            items.push_back(item.value_or(StreamItem{}));
            return !is_last(items.back());
        });
        return items;
    }
    std::vector<StreamItem> exec(const protocol::ExecRequest& request) {
        return stream(stream_exec, protocol::encode_exec_request(request),
                      [](const StreamItem&) { return false; });
    }

    tests::TemporaryDirectory folder;
    LogStore logs{folder / "log", nullptr};
    GuestState state;
    GuestApiContext context;
    int shutdowns = 0;
};

TEST_F(GuestApiTest, tells_what_the_agent_put_there) {
    protocol::GuestInfo info;
    info.boot_id = "1234";
    info.flavour = "release";
    info.data_disk = "plain";
    state.set_info(info);
    const auto decoded = protocol::decode_guest_info(ask("Info").body);
    ASSERT_TRUE(decoded);
    EXPECT_EQ(decoded->boot_id, "1234");
    EXPECT_EQ(decoded->data_disk, "plain");
}

TEST_F(GuestApiTest, lists_the_services) {
    protocol::ServiceStatus web;
    web.name = "web";
    web.state = "running";
    state.set_services({web});
    const auto services = protocol::decode_services(ask("Services").body);
    ASSERT_TRUE(services);
    ASSERT_EQ(services->size(), 1U);
    EXPECT_EQ(services->front().name, "web");
}

TEST_F(GuestApiTest, tells_what_modules_have_counted_by_now) {
    using wasm::worker::Counters;
    protocol::ServiceStatus function;
    function.name = "function";
    protocol::ServiceStatus program;
    program.name = "program";
    state.set_services({function, program});
    const auto counters =
        std::make_shared<const Counters>(Counters::create(protocol::World::function).value());
    state.set_counters("function", counters);
    for (std::uint64_t calls = 0; calls < 3; ++calls) {
        const auto services = protocol::decode_services(ask("Services").body);
        ASSERT_TRUE(services) << services.error().describe();
        EXPECT_EQ(services->front().counters.at("call"), calls);
        EXPECT_TRUE(services->back().counters.empty());
        counters->add(wasm::worker::call_counter);
    }
}

TEST_F(GuestApiTest, asks_for_the_shutdown_and_answers_at_once) {
    const auto response = ask("Shutdown");
    EXPECT_EQ(response.status, 200);
    EXPECT_EQ(response.body, "null");
    EXPECT_EQ(shutdowns, 1);
}

TEST_F(GuestApiTest, refuses_exec_in_the_release_flavour) {
    const auto response = ask("Exec");
    EXPECT_EQ(response.status, 403);
    EXPECT_THAT(response.body, HasSubstr("dev"));
}

TEST_F(GuestApiTest, does_not_know_other_methods_or_verbs) {
    EXPECT_EQ(ask("GetSealingKey").status, 404);
    net::HttpRequest request;
    request.path = "/api/Shutdown";
    EXPECT_EQ(answer_guest_request(context, request).status, 405);
    EXPECT_EQ(shutdowns, 0);
}

TEST_F(GuestApiTest, sends_the_last_lines_and_ends) {
    for (const auto* text : {"one", "two", "three"})
        logs.append("web", text);
    protocol::LogsRequest request;
    request.tail = 2;
    const auto items = stream(stream_logs, protocol::encode_logs_request(request),
                              [](const StreamItem&) { return false; });
    ASSERT_EQ(items.size(), 2U);
    EXPECT_EQ(items[0].bytes, "two\n");
    EXPECT_EQ(items[1].service, "web");
}

TEST_F(GuestApiTest, follows_until_the_peer_is_gone) {
    logs.append("web", "old");
    std::thread writer;
    protocol::LogsRequest request;
    request.follow = true;
    const auto items =
        stream(stream_logs, protocol::encode_logs_request(request), [&](const StreamItem& item) {
            if (item.bytes == "old\n")
                writer = std::thread([this] { logs.append("web", "new"); });
            return item.bytes == "new\n";
        });
    writer.join();
    EXPECT_EQ(items.back().bytes, "new\n");
}

TEST_F(GuestApiTest, keeps_a_quiet_stream_alive) {
    context.keep_alive = 1ms;
    protocol::LogsRequest request;
    request.follow = true;
    const auto items = stream(stream_logs, protocol::encode_logs_request(request),
                              [](const StreamItem&) { return true; });
    ASSERT_EQ(items.size(), 1U);
    EXPECT_EQ(items[0].kind, StreamItem::Kind::keep_alive);
}

TEST_F(GuestApiTest, ends_following_when_the_store_closes) {
    std::thread closer([this] { logs.close(); });
    protocol::LogsRequest request;
    request.follow = true;
    stream(stream_logs, protocol::encode_logs_request(request),
           [](const StreamItem&) { return false; });
    closer.join();
    EXPECT_TRUE(logs.closed());
}

TEST_F(GuestApiTest, answers_a_broken_request_with_an_error_item) {
    for (const auto function : {stream_logs, stream_exec}) {
        const auto items = stream(function, "[", [](const StreamItem&) { return false; });
        ASSERT_EQ(items.size(), 1U);
        EXPECT_EQ(items[0].kind, StreamItem::Kind::error);
    }
}

TEST_F(GuestApiTest, runs_a_command_with_its_input_streams_and_exit_code) {
    const auto items = exec({{"sh", "-c", "cat; echo to-err >&2; exit 7"}, {}, "from stdin"});
    std::string out;
    std::string err;
    for (const auto& item : items)
        (item.kind == StreamItem::Kind::out   ? out
         : item.kind == StreamItem::Kind::err ? err
                                              : out) += item.bytes;
    EXPECT_EQ(out, "from stdin");
    EXPECT_EQ(err, "to-err\n");
    EXPECT_EQ(items.back().kind, StreamItem::Kind::exit);
    EXPECT_EQ(items.back().exit_code, 7);
}

TEST_F(GuestApiTest, lets_the_request_override_variables) {
    const auto items = exec({{"sh", "-c", "echo $WHO"}, {{"WHO", "caller"}}, ""});
    EXPECT_EQ(items.front().bytes, "caller\n");
}

TEST_F(GuestApiTest, names_the_command_that_is_missing) {
    const auto items = exec({{"/no/such/program"}, {}, ""});
    ASSERT_EQ(items.size(), 1U);
    EXPECT_EQ(items[0].kind, StreamItem::Kind::error);
    EXPECT_THAT(items[0].bytes, HasSubstr("/no/such/program"));
}

TEST_F(GuestApiTest, kills_the_command_when_the_peer_is_gone) {
    pid_t pid = 0;
    stream(stream_exec,
           protocol::encode_exec_request({{"sh", "-c", "echo $$; exec sleep 1000"}, {}, ""}),
           [&](const StreamItem& item) {
               pid = std::stoi(item.bytes);
               return true;
           });
    ASSERT_GT(pid, 0);
    EXPECT_FALSE(identify_process(pid));
}

TEST_F(GuestApiTest, waits_for_a_command_that_closed_its_output) {
    context.keep_alive = 1ms;
    const auto items = exec({{"sh", "-c", "exec >&- 2>&-; sleep 0.05; exit 3"}, {}, ""});
    EXPECT_EQ(items.back().kind, StreamItem::Kind::exit);
    EXPECT_EQ(items.back().exit_code, 3);
}

TEST(GuestApiPorts, names_the_port_that_is_missing) {
    const tests::TemporaryDirectory folder;
    const auto api = GuestApi::serve({}, folder / "port2", folder / "port3");
    ASSERT_FALSE(api);
    EXPECT_EQ(api.error().code, ErrorCode::not_found);
    EXPECT_THAT(api.error().message, HasSubstr("port2"));
}

} // namespace
} // namespace host_runner::agent

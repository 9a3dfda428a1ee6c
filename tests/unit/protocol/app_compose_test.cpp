// SPDX-License-Identifier: Apache-2.0
#include "host_runner/protocol/app_compose.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace host_runner::protocol {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using namespace std::chrono_literals;

AppService make_service(const std::string& name, std::vector<AppDependency> depends_on = {}) {
    AppService service;
    service.name = name;
    service.command = {"/bin/true"};
    service.depends_on = std::move(depends_on);
    return service;
}

AppCompose full_app() {
    AppCompose app;
    app.name = "hello";
    app.volumes = {"data"};
    app.files = {{"./site.html", std::string(64, 'a'), 12}};
    app.egress = true;
    auto web = make_service("web", {{"db", DependencyCondition::healthy}});
    web.command = {"/bin/httpd", "-f", "a\"b\n\xc3\xa9"};
    web.environment = {{"B", "2"}, {"A", "1"}};
    web.working_directory = "/www";
    web.user = "www:www";
    web.restart = RestartPolicy::on_failure;
    web.max_restarts = 3;
    web.stop_grace_period = 5s;
    web.memory_limit_bytes = 64 << 20;
    web.pids_limit = 10;
    web.mounts = {{"data", "/data", false, false}, {"./site.html", "/www/index.html", true, true}};
    web.ports = {8080};
    auto db = make_service("db");
    db.health_check = AppHealthCheck{{"/bin/check"}, 1s, 2s, 500ms, 4};
    auto task = make_service("task");
    app.files.push_back({"./task.wasm", std::string(64, 'b'), 99});
    app.files.push_back({"./site.pem", std::string(64, 'c'), 1});
    app.files.push_back({"./key.pem", std::string(64, 'd'), 1});
    task.module = AppModule{
        "./task.wasm", World::command, 16UL << 20, 90s, {}, AppTls{"./site.pem", "./key.pem"}};
    auto api = make_service("api");
    api.ports = {80};
    api.module =
        AppModule{"./task.wasm", World::wasi_http, 64UL << 20, 5s, {"db.example:5432"}, {}};
    auto function = make_service("function");
    function.module = AppModule{"./task.wasm", World::function, 64UL << 20, 5s, {}, {}, {3, 1000}};
    app.services = {web, db, task, api, function};
    return app;
}

/// The error of the app, after `change`.
template <class Change>
std::string problem_after(const Change& change) {
    auto app = full_app();
    change(app);
    const auto result = check_app_compose(app);
    return result ? "none" : result.error().message;
}

TEST(AppCompose, encodes_to_exactly_these_bytes) {
    AppCompose app;
    app.name = "one";
    app.services = {make_service("web")};
    app.services[0].environment = {{"B", "2"}, {"A", "1"}};
    // Typed by hand: the hash of these bytes is the app's identity, a change is a new identity.
    EXPECT_EQ(encode_app_compose(app),
              R"({"manifest_version":2,"name":"one","runner":"host-runner","kms_enabled":false,)"
              R"("gateway_enabled":false,"local_key_provider_enabled":false,"public_logs":false,)"
              R"("public_sysinfo":false,"secure_time":false,"no_instance_id":false,)"
              R"("power_off_when_done":false,"egress":false,"volumes":[],"files":[],"services":[)"
              R"({"name":"web","command":["/bin/true"],"environment":{"A":"1","B":"2"},)"
              R"("working_directory":"","user":"","depends_on":[],"restart":"no","max_restarts":0,)"
              R"("stop_grace_period_ms":10000,"mounts":[],"ports":[]}]})"
              "\n");
}

TEST(AppCompose, decodes_to_what_was_encoded) {
    const auto bytes = encode_app_compose(full_app());
    const auto app = decode_app_compose(bytes);
    ASSERT_TRUE(app) << app.error().describe();
    EXPECT_EQ(encode_app_compose(*app), bytes);
    const auto& web = app->services.at(0);
    EXPECT_EQ(web.command.at(2), "a\"b\n\xc3\xa9");
    EXPECT_EQ(web.depends_on.at(0).condition, DependencyCondition::healthy);
    EXPECT_EQ(web.memory_limit_bytes, 64U << 20);
    EXPECT_TRUE(web.mounts.at(1).is_file);
    EXPECT_EQ(app->services.at(1).health_check->start_period, 500ms);
    const auto& module = app->services.at(2).module;
    ASSERT_TRUE(module);
    EXPECT_EQ(module->file, "./task.wasm");
    EXPECT_EQ(module->world, World::command);
    EXPECT_EQ(module->memory_bytes, 16U << 20);
    EXPECT_EQ(module->timeout, 90s);
    EXPECT_EQ(app->services.at(3).module->world, World::wasi_http);
    EXPECT_THAT(app->services.at(3).module->outgoing, ElementsAre("db.example:5432"));
    EXPECT_EQ(app->services.at(4).module->world, World::function);
    EXPECT_EQ(app->services.at(4).module->calls.calls, 3U);
    EXPECT_EQ(app->services.at(4).module->calls.output_bytes, 1000U);
    ASSERT_TRUE(module->tls);
    EXPECT_EQ(module->tls->certificate_file, "./site.pem");
    EXPECT_EQ(module->tls->key_file, "./key.pem");
}

TEST(AppCompose, encodes_a_module_to_exactly_these_bytes) {
    EXPECT_THAT(
        encode_app_compose(full_app()),
        HasSubstr(
            R"("module":{"file":"./task.wasm","world":"command",)"
            R"("memory_bytes":16777216,"timeout_ms":90000,"tls":{"certificate_file":"./site.pem",)"
            R"("key_file":"./key.pem"}})"));
}

TEST(AppCompose, says_how_many_replicas_only_where_there_are_several) {
    auto app = full_app();
    const auto before = encode_app_compose(app);
    EXPECT_EQ(before.find("replicas"), std::string::npos);
    app.services[3].replicas = 3;
    const auto encoded = encode_app_compose(app);
    EXPECT_THAT(encoded, HasSubstr("},\"replicas\":3},{"));
    const auto decoded = decode_app_compose(encoded);
    ASSERT_TRUE(decoded) << decoded.error().describe();
    EXPECT_EQ(decoded->services[3].replicas, 3U);
    EXPECT_EQ(decoded->services[0].replicas, 1U);
}

TEST(AppCompose, names_replicas_by_number) {
    auto service = make_service("web");
    EXPECT_THAT(replica_names(service), ElementsAre("web"));
    service.replicas = 3;
    EXPECT_THAT(replica_names(service), ElementsAre("web-1", "web-2", "web-3"));
}

TEST(AppCompose, checks_whom_a_module_may_ask) {
    for (const auto* good : {"a.example:1", "127.0.0.1:80", "[::1]:8080"})
        EXPECT_EQ(problem_after([&](auto& app) { app.services[3].module->outgoing = {good}; }),
                  "none")
            << good;
    for (const auto* bad : {"", "a", "a:", ":1", "a:0", "a:65536", "a:1x", "a b:1", "http://a:1"})
        EXPECT_THAT(problem_after([&](auto& app) { app.services[3].module->outgoing = {bad}; }),
                    HasSubstr("nobody whom a module can ask"))
            << bad;
    EXPECT_THAT(problem_after([](auto& app) { app.services[2].module->outgoing = {"a:1"}; }),
                HasSubstr("in the world command"));
}

TEST(AppCompose, checks_what_a_component_that_answers_http_may_have) {
    EXPECT_THAT(problem_after([](auto& app) {
                    app.services[3].ports = {80, 81};
                }),
                HasSubstr("exactly one port"));
    EXPECT_THAT(problem_after([](auto& app) { app.services[3].ports.clear(); }),
                HasSubstr("exactly one port"));
    EXPECT_THAT(problem_after([](auto& app) {
                    app.services[3].mounts = {{"data", "/x", false, false}};
                }),
                HasSubstr("the world wasi-http has no files"));
}

TEST(AppCompose, checks_a_module) {
    EXPECT_THAT(problem_after([](auto& app) { app.services[2].module->file = "./other.wasm"; }),
                HasSubstr("'./other.wasm', which is no file of the app"));
    for (const std::uint64_t bytes : {std::uint64_t{0}, (std::uint64_t{4} << 30U) + 1})
        EXPECT_THAT(
            problem_after([bytes](auto& app) { app.services[2].module->memory_bytes = bytes; }),
            HasSubstr("at most 4 GiB"));
    EXPECT_THAT(problem_after([](auto& app) { app.services[2].module->timeout = -1ms; }),
                HasSubstr("The time-out of service 'task'"));
    EXPECT_THAT(problem_after([](auto& app) { app.services[2].module->tls->key_file.clear(); }),
                HasSubstr("not both"));
    EXPECT_THAT(problem_after([](auto& app) { app.services[2].module->tls->key_file = "./x"; }),
                HasSubstr("needs './x', which is no file"));
    EXPECT_THAT(parse_world("kernel").error().hint, HasSubstr("command, wasi-http, function"));
    EXPECT_THAT(problem_after([](auto& app) { app.services[4].ports = {80}; }),
                HasSubstr("service 'function' has ports"));
    for (const std::uint32_t calls : {0U, 65U})
        EXPECT_THAT(
            problem_after([calls](auto& app) { app.services[4].module->calls.calls = calls; }),
            HasSubstr("must be from 1 to 64"));
}

TEST(AppCompose, is_not_decoded_for_another_runner) {
    const auto app =
        decode_app_compose(R"({"manifest_version":2,"name":"x","runner":"docker-compose"})");
    ASSERT_FALSE(app);
    EXPECT_EQ(app.error().code, ErrorCode::invalid_argument);
    EXPECT_THAT(app.error().message, HasSubstr("docker-compose"));
}

TEST(AppCompose, is_not_decoded_with_an_unknown_member) {
    auto bytes = encode_app_compose(full_app());
    bytes.insert(1, "\"surprise\":1,");
    const auto app = decode_app_compose(bytes);
    ASSERT_FALSE(app);
    EXPECT_THAT(app.error().message, HasSubstr("'surprise'"));
}

TEST(AppCompose, is_not_decoded_with_a_member_twice) {
    auto bytes = encode_app_compose(full_app());
    bytes.insert(1, "\"egress\":false,");
    const auto app = decode_app_compose(bytes);
    ASSERT_FALSE(app);
    EXPECT_THAT(app.error().message, HasSubstr("twice"));
}

TEST(AppCompose, is_not_decoded_without_a_member) {
    auto bytes = encode_app_compose(full_app());
    const std::string member = "\"egress\":true,";
    bytes.erase(bytes.find(member), member.size());
    const auto app = decode_app_compose(bytes);
    ASSERT_FALSE(app);
    EXPECT_THAT(app.error().message, HasSubstr("'egress'"));
}

TEST(AppCompose, is_not_decoded_with_a_member_of_another_type) {
    auto bytes = encode_app_compose(full_app());
    const std::string member = "\"egress\":true";
    bytes.replace(bytes.find(member), member.size(), "\"egress\":\"true\"");
    const auto app = decode_app_compose(bytes);
    ASSERT_FALSE(app);
    EXPECT_THAT(app.error().message, HasSubstr("true or false"));
}

TEST(AppCompose, is_not_decoded_when_nested_too_deeply) {
    const auto app = decode_app_compose(std::string(1000, '['));
    ASSERT_FALSE(app);
    EXPECT_THAT(app.error().message, HasSubstr("nested deeper"));
}

TEST(AppCompose, is_not_decoded_above_the_size_cap) {
    const auto app = decode_app_compose(std::string(max_app_compose_json_bytes + 1, ' '));
    ASSERT_FALSE(app);
    EXPECT_THAT(app.error().message, HasSubstr("more than 262144"));
}

TEST(AppCompose, is_not_decoded_with_a_negative_or_broken_number) {
    for (const auto* number : {"-1", "1.5", "99999999999999999999"}) {
        auto bytes = encode_app_compose(full_app());
        const std::string member = "\"max_restarts\":3";
        bytes.replace(bytes.find(member), member.size(), std::string("\"max_restarts\":") + number);
        EXPECT_FALSE(decode_app_compose(bytes)) << number;
    }
}

TEST(AppComposeRules, accept_the_full_app) {
    EXPECT_EQ(problem_after([](AppCompose&) {}), "none");
}

TEST(AppComposeRules, refuse_a_service_name_that_leads_out_of_a_folder) {
    EXPECT_THAT(problem_after([](AppCompose& app) { app.services[0].name = "../x"; }),
                HasSubstr("'../x' is no service name"));
}

TEST(AppComposeRules, refuse_two_services_of_one_name) {
    EXPECT_THAT(problem_after([](AppCompose& app) { app.services.push_back(app.services[1]); }),
                HasSubstr("'db' is there twice"));
}

TEST(AppComposeRules, bound_replicas_one_by_one_and_together) {
    for (const std::uint32_t count : {std::uint32_t{0}, std::uint32_t{129}, UINT32_MAX})
        EXPECT_THAT(problem_after([&](auto& app) { app.services[2].replicas = count; }),
                    HasSubstr("must have 1 to 128 replicas"));
    EXPECT_EQ(problem_after([](auto& app) { app.services[2].replicas = 124; }), "none");
    EXPECT_THAT(problem_after([](auto& app) { app.services[2].replicas = 125; }),
                HasSubstr("at most 128 services with all their replicas, not 129"));
}

TEST(AppComposeRules, refuse_replicas_that_would_fight_for_a_port) {
    EXPECT_THAT(problem_after([](auto& app) { app.services[0].replicas = 2; }),
                HasSubstr("'web' is a program with ports"));
    EXPECT_EQ(problem_after([](auto& app) { app.services[3].replicas = 2; }), "none");
}

TEST(AppComposeRules, refuse_a_service_with_the_name_of_a_replica) {
    EXPECT_THAT(problem_after([](auto& app) {
                    app.services[1].name = "api-2";
                    app.services[0].depends_on.clear();
                    app.services[3].replicas = 2;
                }),
                HasSubstr("'api-2' is that of a replica of service 'api'"));
}

TEST(AppComposeRules, refuse_a_command_without_a_program) {
    EXPECT_THAT(problem_after([](AppCompose& app) { app.services[0].command.clear(); }),
                HasSubstr("names no program"));
}

TEST(AppComposeRules, refuse_text_that_is_not_utf8_or_holds_nul) {
    EXPECT_THAT(problem_after([](AppCompose& app) { app.services[0].command[1] = "\xff"; }),
                HasSubstr("UTF-8"));
    EXPECT_THAT(
        problem_after([](AppCompose& app) { app.services[0].command[1] = std::string("a\0b", 3); }),
        HasSubstr("NUL"));
}

TEST(AppComposeRules, refuse_a_mount_of_what_the_app_does_not_have) {
    EXPECT_THAT(problem_after([](AppCompose& app) { app.volumes.clear(); }),
                HasSubstr("mounts 'data', which is no volume"));
    EXPECT_THAT(problem_after([](AppCompose& app) { app.files.clear(); }),
                HasSubstr("mounts './site.html', which is no file"));
}

TEST(AppComposeRules, refuse_a_mount_target_with_dots_or_relative) {
    for (const auto* target : {"/data/../etc", "data", ""})
        EXPECT_NE(
            problem_after([&](AppCompose& app) { app.services[0].mounts[0].target = target; }),
            "none")
            << target;
}

TEST(AppComposeRules, refuse_a_hash_that_is_no_sha256) {
    for (const auto& hash : {std::string(63, 'a'), std::string(64, 'A'), std::string("../x")})
        EXPECT_THAT(problem_after([&](AppCompose& app) { app.files[0].sha256 = hash; }),
                    HasSubstr("SHA-256"));
}

TEST(AppComposeRules, refuse_a_health_check_that_never_runs) {
    EXPECT_THAT(
        problem_after([](AppCompose& app) { app.services[1].health_check->interval = 0ms; }),
        HasSubstr("above 0"));
}

TEST(StartOrder, puts_each_service_after_what_it_depends_on) {
    const std::vector<AppService> services{make_service("c", {{"b"}}), make_service("b", {{"a"}}),
                                           make_service("a"), make_service("d", {{"a"}, {"c"}})};
    EXPECT_THAT(start_order(services).value(), ElementsAre(2, 1, 0, 3));
}

TEST(StartOrder, keeps_the_order_of_the_file_where_nothing_else_counts) {
    EXPECT_THAT(start_order({make_service("b"), make_service("a")}).value(), ElementsAre(0, 1));
}

TEST(StartOrder, names_the_circle) {
    const auto order = start_order({make_service("free"), make_service("a", {{"b"}}),
                                    make_service("b", {{"c"}}), make_service("c", {{"b"}})});
    ASSERT_FALSE(order);
    EXPECT_THAT(order.error().message, HasSubstr("b -> c -> b"));
}

TEST(StartOrder, refuses_a_service_that_depends_on_itself) {
    const auto order = start_order({make_service("a", {{"a"}})});
    ASSERT_FALSE(order);
    EXPECT_THAT(order.error().message, HasSubstr("a -> a"));
}

TEST(StartOrder, refuses_an_unknown_dependency) {
    const auto order = start_order({make_service("a", {{"ghost"}})});
    ASSERT_FALSE(order);
    EXPECT_THAT(order.error().message, HasSubstr("'ghost'"));
}

} // namespace
} // namespace host_runner::protocol

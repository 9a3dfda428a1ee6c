// SPDX-License-Identifier: Apache-2.0
#include "host_runner/spec/compose.hpp"

#include <filesystem>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "fakes/oci_layout.hpp"
#include "fakes/temporary_directory.hpp"
#include "host_runner/base/files.hpp"
#include "host_runner/crypto/digest.hpp"

namespace host_runner::spec {
namespace {

using protocol::DependencyCondition;
using protocol::RestartPolicy;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;
using testing::StartsWith;
using tests::TemporaryDirectory;
using namespace std::chrono_literals;

Result<ResolvedCompose> resolve(const std::string& text,
                                const std::map<std::string, std::string>& environment = {},
                                const std::string& path = "hello.yaml") {
    HR_TRY(const auto compose, parse_compose(path, text));
    return resolve_compose(compose, environment);
}

/// The only service of a file with these lines below `web:`.
Result<protocol::AppService> resolve_service(const std::string& lines) {
    HR_TRY(auto resolved, resolve("services:\n  web:\n    command: [/bin/true]\n" + lines + "\n"));
    return std::move(resolved.app.services.at(0));
}

std::string error_of(const std::string& text) {
    const auto result = resolve(text);
    return result ? "none" : result.error().message;
}

std::string service_error(const std::string& lines) {
    const auto result = resolve_service(lines);
    return result ? "none" : result.error().message;
}

void write(const std::string& path, const std::string& bytes) {
    ASSERT_TRUE(write_file_atomic(path, bytes));
}

// ---- the file ----------------------------------------------------------------------------------

TEST(Compose, takes_its_name_from_the_file_unless_it_says_one) {
    EXPECT_EQ(parse_compose("some/hello.yaml", "services: {}")->name, "hello");
    EXPECT_EQ(parse_compose("compose.yaml", "{name: other, services: {}}")->name, "other");
}

TEST(Compose, keeps_the_raw_bytes) {
    const std::string text = "services:   {}  # a comment\n";
    EXPECT_EQ(parse_compose("c.yaml", text)->text, text);
}

TEST(Compose, finds_a_container_image_among_the_services) {
    const auto compose = parse_compose("c.yaml", R"(
services:
  job: {command: /bin/true}
  web: {image: nginx, build: ., network_mode: host}
)");
    ASSERT_TRUE(compose);
    EXPECT_TRUE(compose->has_container_images);
    EXPECT_EQ(compose->first_container_image, "(built from sources)");
}

TEST(Compose, takes_a_module_or_an_oci_layout_folder_for_no_container_image) {
    const TemporaryDirectory dir;
    ASSERT_TRUE(make_directories(dir / "layout"));
    write(dir / "layout/oci-layout", "{}");
    const auto compose = parse_compose(dir / "c.yaml", R"(
services:
  a: {image: ./a.wasm}
  b: {image: ./layout}
  c: {image: "docker.io/x", platform: wasi/wasm}
)");
    ASSERT_TRUE(compose);
    EXPECT_FALSE(compose->has_container_images);
}

TEST(Compose, that_is_missing_is_not_found) {
    const auto compose = load_compose("/nowhere/compose.yaml");
    ASSERT_FALSE(compose);
    EXPECT_EQ(compose.error().code, ErrorCode::not_found);
    EXPECT_THAT(compose.error().message, HasSubstr("/nowhere/compose.yaml"));
}

TEST(Compose, above_256_kib_is_refused) {
    const TemporaryDirectory dir;
    write(dir / "big.yaml", "services: {}\n#" + std::string(256UL * 1024, 'x'));
    const auto compose = load_compose(dir / "big.yaml");
    ASSERT_FALSE(compose);
    EXPECT_EQ(compose.error().code, ErrorCode::corrupt_data);
}

TEST(Compose, without_services_is_refused) {
    EXPECT_THAT(error_of("name: x\n"), HasSubstr("no services"));
    EXPECT_THAT(error_of(""), HasSubstr("hello.yaml: The file is empty"));
}

TEST(Compose, that_is_no_yaml_names_the_place) {
    EXPECT_THAT(error_of("services:\n  web: [\n"), StartsWith("hello.yaml:3:1: "));
}

// ---- hostile YAML ------------------------------------------------------------------------------

TEST(HostileCompose, alias_bomb_ends_soon) {
    std::string text = "x-a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n";
    for (int i = 1; i < 12; ++i) {
        text += "x-a" + std::to_string(i) + ": &a" + std::to_string(i) + " [";
        for (int j = 0; j < 10; ++j)
            text += (j > 0 ? ",*a" : "*a") + std::to_string(i - 1);
        text += "]\n";
    }
    EXPECT_THAT(error_of(text + "services: {}\n"), HasSubstr("More than"));
}

TEST(HostileCompose, alias_to_itself_ends) {
    EXPECT_THAT(error_of("x-a: &a [*a]\nservices: {}\n"), HasSubstr("hello.yaml"));
}

TEST(HostileCompose, deep_nesting_is_refused) {
    EXPECT_THAT(
        error_of("x-a: " + std::string(40, '[') + std::string(40, ']') + "\nservices: {}\n"),
        HasSubstr("Nested deeper"));
    EXPECT_THAT(error_of("x-a: " + std::string(100'000, '[')), StartsWith("hello.yaml"));
}

TEST(HostileCompose, key_twice_is_refused_at_its_second_place) {
    EXPECT_THAT(error_of("services:\n  web: {command: a}\n  web: {command: b}\n"),
                StartsWith("hello.yaml:3:3: The key 'web' is there twice"));
}

TEST(HostileCompose, text_that_is_not_utf8_is_refused) {
    EXPECT_THAT(error_of("services: {a: {command: \xff}}\n"), HasSubstr("UTF-8"));
    EXPECT_THAT(error_of(std::string("services: {}\0", 13)), HasSubstr("UTF-8"));
}

TEST(HostileCompose, second_document_is_refused) {
    EXPECT_THAT(error_of("services: {}\n---\nservices: {}\n"),
                HasSubstr("more than one YAML document"));
}

TEST(HostileCompose, text_that_yaml_cpp_takes_for_endless_documents_is_refused) {
    EXPECT_THAT(error_of(","), HasSubstr("more than one YAML document"));
}

TEST(HostileCompose, tag_of_its_own_is_refused) {
    EXPECT_THAT(service_error("    user: !mine x"), HasSubstr("tag !mine"));
}

TEST(HostileCompose, key_that_is_a_list_is_refused) {
    EXPECT_THAT(error_of("? [a, b]\n: 1\nservices: {}\n"), HasSubstr("A key must be"));
}

// ---- keys --------------------------------------------------------------------------------------

TEST(ComposeKeys, unknown_ones_are_errors_with_line_and_column) {
    EXPECT_THAT(error_of("services:\n  web:\n    command: a\n    comand: b\n"),
                StartsWith("hello.yaml:4:5: The key 'comand' is not known here"));
    EXPECT_THAT(error_of("nope: 1\nservices: {}\n"), StartsWith("hello.yaml:1:1: "));
}

TEST(ComposeKeys, that_begin_with_x_are_let_pass) {
    EXPECT_TRUE(resolve("x-note: {a: 1}\nservices:\n  web: {command: a, x-other: [1]}\n"));
}

TEST(ComposeKeys, merge_keys_are_refused) {
    EXPECT_THAT(error_of("x-a: &a {user: u}\nservices:\n  web:\n    <<: *a\n    command: a\n"),
                StartsWith("hello.yaml:4:5: Merge keys"));
}

TEST(ComposeKeys, aliases_as_values_work) {
    const auto resolved =
        resolve("x-e: &e {A: \"1\"}\nservices:\n  web: {command: a, environment: *e}\n");
    ASSERT_TRUE(resolved) << resolved.error().describe();
    EXPECT_THAT(resolved->app.services[0].environment, ElementsAre(Pair("A", "1")));
}

TEST(ComposeKeys, x_power_off_and_x_egress_are_flags) {
    const auto resolved = resolve("x-power-off: true\nx-egress: true\nservices: {}\n");
    ASSERT_TRUE(resolved);
    EXPECT_TRUE(resolved->app.power_off_when_done);
    EXPECT_TRUE(resolved->app.egress);
    EXPECT_THAT(error_of("x-egress: yes\nservices: {}\n"),
                StartsWith("hello.yaml:1:11: 'yes' is neither true nor false"));
}

TEST(ComposeKeys, secrets_are_not_supported_yet) {
    const auto result = resolve("secrets: {a: {file: ./a}}\nservices: {}\n");
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().code, ErrorCode::unsupported);
}

// ---- kinds of services -------------------------------------------------------------------------

TEST(ComposeService, of_a_container_image_is_unsupported_whatever_else_it_says) {
    const auto result = resolve("services:\n  web:\n    network_mode: host\n    image: nginx:1\n");
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().code, ErrorCode::unsupported);
    EXPECT_THAT(result.error().message, StartsWith("hello.yaml:2:3: Service 'web' wants the "
                                                   "container image nginx:1"));
}

TEST(ComposeService, without_a_program_is_an_error) {
    EXPECT_THAT(error_of("services:\n  web: {user: a}\n"),
                StartsWith("hello.yaml:2:3: Service 'web' names no program"));
}

TEST(ComposeService, with_a_bad_name_is_an_error_at_its_place) {
    EXPECT_THAT(error_of("services:\n  \"a b\": {command: x}\n"),
                StartsWith("hello.yaml:2:3: 'a b' is no service name"));
}

TEST(ComposeService, x_world_is_for_wasm_only) {
    EXPECT_THAT(service_error("    x-world: command"), HasSubstr("WebAssembly services only"));
    EXPECT_THAT(service_error("    x-tls: self-signed"), HasSubstr("WebAssembly services only"));
}

// ---- WebAssembly -------------------------------------------------------------------------------

/// A folder with modules beside its compose file.
class ComposeModule : public testing::Test {
protected:
    ComposeModule() {
        for (const auto* name : {"site", "missing_imports", "reactor"}) {
            const auto file = std::string(name) + ".wasm";
            std::filesystem::copy_file(
                std::string(HOST_RUNNER_SOURCE_DIR "/tests/fixtures/wasm/") + file, folder / file);
        }
        write(folder / "component.wasm", std::string("\0asm\x0d\0\x01\0", 8));
        write(folder / "text.wasm", "(module)");
    }
    Result<protocol::AppService> resolve_service(const std::string& lines) {
        HR_TRY(auto resolved,
               resolve("services:\n  web:\n" + lines + "\n", {}, folder / "compose.yaml"));
        files = resolved.app.files;
        return std::move(resolved.app.services.at(0));
    }
    std::string error_of(const std::string& lines) {
        const auto service = resolve_service(lines);
        return service ? "none" : service.error().message;
    }
    TemporaryDirectory folder;
    std::vector<protocol::AppFile> files;
};

TEST_F(ComposeModule, is_delivered_and_run_as_a_command) {
    const auto service = resolve_service("    image: ./site.wasm\n    command: [\"two words\"]");
    ASSERT_TRUE(service) << service.error().describe();
    ASSERT_TRUE(service->module);
    EXPECT_EQ(service->module->file, "./site.wasm");
    EXPECT_EQ(service->module->world, protocol::World::command);
    EXPECT_EQ(service->module->memory_bytes, 64U << 20);
    EXPECT_EQ(service->module->timeout, 0ms);
    EXPECT_THAT(service->command, ElementsAre("site.wasm", "two words"));
    ASSERT_EQ(files.size(), 1U);
    EXPECT_EQ(files[0].name, "./site.wasm");
}

TEST_F(ComposeModule, takes_the_rest_of_a_service_as_programs_do) {
    const auto service = resolve_service("    image: ./site.wasm\n"
                                         "    platform: wasi/wasm\n"
                                         "    x-world: command\n"
                                         "    ports: [\"8080:80\"]\n"
                                         "    environment: {GREETING: hi}\n"
                                         "    restart: always\n"
                                         "    x-limits: {memory: 16M, timeout: 90s, pids: 9}");
    ASSERT_TRUE(service) << service.error().describe();
    EXPECT_EQ(service->module->memory_bytes, 16U << 20);
    EXPECT_EQ(service->module->timeout, 90s);
    EXPECT_EQ(service->pids_limit, 9U);
    EXPECT_FALSE(service->memory_limit_bytes);
    EXPECT_THAT(service->ports, ElementsAre(80));
    EXPECT_THAT(service->environment, ElementsAre(Pair("GREETING", "hi")));
}

TEST_F(ComposeModule, that_is_none_is_refused_at_its_place) {
    EXPECT_THAT(error_of("    image: ./text.wasm"),
                HasSubstr("compose.yaml:3:12: This is no WebAssembly module"));
    EXPECT_THAT(error_of("    image: ./absent.wasm"), HasSubstr("absent.wasm"));
    EXPECT_THAT(error_of("    platform: wasi/wasm"), HasSubstr("names no module"));
    EXPECT_THAT(error_of("    image: ./site.wasm\n    platform: wasi/other"),
                HasSubstr("'wasi/other' is no platform"));
}

TEST_F(ComposeModule, that_suits_no_world_says_why) {
    EXPECT_THAT(error_of("    image: ./missing_imports.wasm"),
                HasSubstr("No world offers the import"));
    EXPECT_THAT(error_of("    image: ./reactor.wasm"), HasSubstr("exports no _start"));
    EXPECT_THAT(error_of("    image: ./component.wasm"), HasSubstr("exports no wasi:http"));
    EXPECT_THAT(error_of("    image: ./site.wasm\n    x-world: wasi-http"),
                HasSubstr("./site.wasm is a module for the world command"));
    EXPECT_THAT(error_of("    image: ./site.wasm\n    x-world: kernel"),
                HasSubstr("'kernel' is not a world"));
}

TEST_F(ComposeModule, is_a_function_where_it_says_so) {
    const auto service = resolve_service("    image: ./site.wasm\n"
                                         "    x-world: function\n"
                                         "    x-limits: {timeout: 2s, calls: 3, output: 1k}");
    ASSERT_TRUE(service) << service.error().describe();
    EXPECT_EQ(service->module->world, protocol::World::function);
    EXPECT_EQ(service->module->timeout, 2s);
    EXPECT_EQ(service->module->calls.calls, 3U);
    EXPECT_EQ(service->module->calls.output_bytes, 1024U);
    EXPECT_EQ(resolve_service("    image: ./site.wasm\n    x-world: function\n"
                              "    x-limits: {output: none}")
                  ->module->calls.output_bytes,
              0U);
    EXPECT_THAT(error_of("    image: ./site.wasm\n    x-limits: {calls: 3}"),
                HasSubstr("'calls' is not known for a module of the world command"));
    EXPECT_THAT(error_of("    image: ./site.wasm\n    x-world: function\n    ports: [\"80\"]"),
                HasSubstr("the world function has no sockets"));
    EXPECT_THAT(
        error_of("    image: ./site.wasm\n    x-world: function\n    x-limits: {calls: 65}"),
        HasSubstr("from 1 to 64"));
}

TEST_F(ComposeModule, in_an_oci_layout_is_found_and_checked) {
    tests::write_oci_layout(folder / "layout", *read_file(folder / "site.wasm", 1 << 20));
    const auto service = resolve_service("    image: ./layout");
    ASSERT_TRUE(service) << service.error().describe();
    EXPECT_EQ(service->module->file, "./layout");
    EXPECT_THAT(service->command, ElementsAre("layout"));
    ASSERT_EQ(files.size(), 1U);
    EXPECT_EQ(files[0].sha256, crypto::sha256_hex(*read_file(folder / "site.wasm", 1 << 20)));
    write(folder / ("layout/blobs/sha256/" + files[0].sha256), "other bytes");
    const auto changed = resolve_service("    image: ./layout");
    ASSERT_FALSE(changed);
    EXPECT_EQ(changed.error().code, ErrorCode::corrupt_data);
    EXPECT_THAT(changed.error().message, HasSubstr("compose.yaml:3:12: The module in ./layout"));
}

TEST_F(ComposeModule, gets_tcp_ports_only) {
    EXPECT_THAT(error_of("    image: ./site.wasm\n    ports: [\"53:53/udp\"]"),
                HasSubstr("compose.yaml:4:13: A WebAssembly service gets TCP sockets only"));
}

TEST_F(ComposeModule, speaks_tls_with_a_certificate_of_its_own_or_with_files) {
    const auto own = resolve_service("    image: ./site.wasm\n    x-tls: self-signed");
    ASSERT_TRUE(own) << own.error().describe();
    ASSERT_TRUE(own->module->tls);
    EXPECT_EQ(own->module->tls->key_file, "");
    write(folder / "site.pem", "certificate");
    write(folder / "key.pem", "key");
    const auto given = resolve_service("    image: ./site.wasm\n"
                                       "    x-tls: {certificate: ./site.pem, key: ./key.pem}");
    ASSERT_TRUE(given) << given.error().describe();
    EXPECT_EQ(given->module->tls->certificate_file, "./site.pem");
    EXPECT_EQ(given->module->tls->key_file, "./key.pem");
    EXPECT_EQ(files.size(), 3U);
    EXPECT_THAT(error_of("    image: ./site.wasm\n    x-tls: yes"), HasSubstr("'yes' is no kind"));
    EXPECT_THAT(error_of("    image: ./site.wasm\n    x-tls: {certificate: ./site.pem}"),
                HasSubstr("needs the file of the key"));
    EXPECT_THAT(
        error_of("    image: ./site.wasm\n    x-tls: {certificate: ./no.pem, key: ./key.pem}"),
        HasSubstr("no.pem"));
}

TEST_F(ComposeModule, may_ask_others_over_http_only_where_its_world_can) {
    EXPECT_THAT(error_of("    image: ./site.wasm\n    x-outgoing: [\"api.example.com:443\"]"),
                HasSubstr("x-outgoing is for components only"));
}

TEST_F(ComposeModule, has_no_working_directory_and_no_other_limits) {
    EXPECT_THAT(error_of("    image: ./site.wasm\n    working_dir: /x"), HasSubstr("working_dir"));
    EXPECT_THAT(error_of("    image: ./site.wasm\n    x-limits: {cpu: 1}"),
                HasSubstr("'cpu' is not known for a module"));
}

// ---- command, environment ----------------------------------------------------------------------

TEST(ComposeCommand, as_a_string_is_split_as_a_shell_would) {
    const auto resolved = resolve("services: {a: {command: \"sh -c 'echo \\\"hi there\\\"' x\"}}");
    ASSERT_TRUE(resolved) << resolved.error().describe();
    EXPECT_THAT(resolved->app.services[0].command,
                ElementsAre("sh", "-c", "echo \"hi there\"", "x"));
}

TEST(ComposeCommand, follows_the_entry_point) {
    const auto resolved = resolve("services: {a: {command: [x, y], entrypoint: /bin/prog -v}}");
    ASSERT_TRUE(resolved);
    EXPECT_THAT(resolved->app.services[0].command, ElementsAre("/bin/prog", "-v", "x", "y"));
}

TEST(ComposeCommand, keeps_a_doubled_dollar_sign_as_one) {
    const auto resolved = resolve("services: {a: {command: [sh, -c, \"echo $$HOME\"]}}");
    ASSERT_TRUE(resolved);
    EXPECT_EQ(resolved->app.services[0].command.back(), "echo $HOME");
}

TEST(ComposeCommand, with_a_variable_of_the_host_is_refused) {
    for (const auto* text : {"$HOME", "${HOME:-x}", "a$"})
        EXPECT_THAT(error_of(std::string("services: {a: {command: [sh, \"") + text + "\"]}}"),
                    HasSubstr("environment of the host"))
            << text;
}

TEST(ComposeEnvironment, is_a_map_or_a_list) {
    EXPECT_THAT(resolve_service("    environment: {B: 2, A: yes}")->environment,
                ElementsAre(Pair("A", "yes"), Pair("B", "2")));
    EXPECT_THAT(resolve_service("    environment: [\"A=x=y\", \"B=\"]")->environment,
                ElementsAre(Pair("A", "x=y"), Pair("B", "")));
}

TEST(ComposeEnvironment, without_a_value_is_refused) {
    EXPECT_THAT(service_error("    environment: {A: }"),
                StartsWith("hello.yaml:4:19: The variable A has no value"));
    EXPECT_THAT(service_error("    environment: [A]"), HasSubstr("The variable A has no value"));
}

TEST(ComposeEnvironment, twice_in_a_list_is_refused) {
    EXPECT_THAT(service_error("    environment: [A=1, A=2]"), HasSubstr("twice"));
}

TEST(ComposeEnvironment, of_the_env_file_goes_to_every_service_and_yields_to_its_own) {
    const auto resolved =
        resolve("services:\n  a: {command: x, environment: {K: own}}\n  b: {command: y}\n",
                {{"K", "file"}, {"L", "file"}});
    ASSERT_TRUE(resolved);
    EXPECT_THAT(resolved->app.services[0].environment,
                ElementsAre(Pair("K", "own"), Pair("L", "file")));
    EXPECT_THAT(resolved->app.services[1].environment,
                ElementsAre(Pair("K", "file"), Pair("L", "file")));
}

// ---- depends_on --------------------------------------------------------------------------------

TEST(ComposeDependsOn, is_a_list_or_a_map_with_conditions) {
    const auto resolved = resolve(R"(
services:
  a:
    command: x
    depends_on:
      b: {condition: service_healthy}
      c: {condition: service_completed_successfully}
  b: {command: y, depends_on: [c], healthcheck: {test: [CMD, /bin/true]}}
  c: {command: z}
)");
    ASSERT_TRUE(resolved) << resolved.error().describe();
    const auto& a = resolved->app.services[0].depends_on;
    EXPECT_EQ(a[0].service, "b");
    EXPECT_EQ(a[0].condition, DependencyCondition::healthy);
    EXPECT_EQ(a[1].condition, DependencyCondition::completed_successfully);
    EXPECT_EQ(resolved->app.services[1].depends_on[0].condition, DependencyCondition::started);
}

TEST(ComposeDependsOn, an_unknown_service_is_an_error_at_its_place) {
    EXPECT_THAT(service_error("    depends_on: [ghost]"),
                StartsWith("hello.yaml:4:18: There is no service 'ghost'"));
}

TEST(ComposeDependsOn, a_circle_is_an_error_that_names_it) {
    EXPECT_THAT(error_of("services:\n  a: {command: x, depends_on: [b]}\n"
                         "  b: {command: y, depends_on: [a]}\n"),
                HasSubstr("in a circle: a -> b -> a"));
}

TEST(ComposeDependsOn, healthy_needs_a_health_check) {
    EXPECT_THAT(error_of("services:\n  a: {command: x, depends_on: {b: {condition: "
                         "service_healthy}}}\n  b: {command: y}\n"),
                HasSubstr("has no health check"));
}

TEST(ComposeDependsOn, an_unknown_condition_is_an_error) {
    EXPECT_THAT(service_error("    depends_on: {a: {condition: soon}}"),
                HasSubstr("'soon' is not a condition"));
}

// ---- restart, health check, limits -------------------------------------------------------------

TEST(ComposeRestart, takes_the_four_policies) {
    EXPECT_EQ(resolve_service("    restart: no")->restart, RestartPolicy::no);
    EXPECT_EQ(resolve_service("    restart: always")->restart, RestartPolicy::always);
    EXPECT_EQ(resolve_service("    restart: unless-stopped")->restart,
              RestartPolicy::unless_stopped);
    const auto service = resolve_service("    restart: on-failure:3");
    EXPECT_EQ(service->restart, RestartPolicy::on_failure);
    EXPECT_EQ(service->max_restarts, 3U);
}

TEST(ComposeRestart, refuses_other_words) {
    for (const auto* word :
         {"sometimes", "on-failure:", "on-failure:0", "on-failure:x", "always:3"})
        EXPECT_THAT(service_error(std::string("    restart: \"") + word + "\""),
                    HasSubstr("is not a restart policy"))
            << word;
}

TEST(ComposeHealthCheck, takes_all_its_parts) {
    const auto service = resolve_service(
        "    healthcheck: {test: [CMD, wget, x], interval: 1s, timeout: 500ms, retries: 7, "
        "start_period: 1m30s}");
    ASSERT_TRUE(service) << service.error().describe();
    ASSERT_TRUE(service->health_check);
    EXPECT_THAT(service->health_check->command, ElementsAre("wget", "x"));
    EXPECT_EQ(service->health_check->interval, 1s);
    EXPECT_EQ(service->health_check->timeout, 500ms);
    EXPECT_EQ(service->health_check->retries, 7U);
    EXPECT_EQ(service->health_check->start_period, 90s);
}

TEST(ComposeHealthCheck, runs_a_string_by_the_shell) {
    for (const auto* test : {"\"a || b\"", "[CMD-SHELL, \"a || b\"]"})
        EXPECT_THAT(resolve_service(std::string("    healthcheck: {test: ") + test + "}")
                        ->health_check->command,
                    ElementsAre("/bin/sh", "-c", "a || b"));
}

TEST(ComposeHealthCheck, can_be_switched_off) {
    EXPECT_FALSE(resolve_service("    healthcheck: {disable: true}")->health_check);
    EXPECT_FALSE(resolve_service("    healthcheck: {test: [NONE]}")->health_check);
}

TEST(ComposeHealthCheck, needs_a_test_of_a_known_kind) {
    EXPECT_THAT(service_error("    healthcheck: {interval: 1s}"), HasSubstr("needs a test"));
    EXPECT_THAT(service_error("    healthcheck: {test: [wget, x]}"),
                HasSubstr("begins with CMD, CMD-SHELL or NONE"));
    EXPECT_THAT(service_error("    healthcheck: {test: x, interval: 0s}"), HasSubstr("above 0"));
}

TEST(ComposeReplicas, come_from_deploy_or_scale) {
    EXPECT_EQ(resolve_service("")->replicas, 1U);
    EXPECT_EQ(resolve_service("    deploy: {replicas: 3}")->replicas, 3U);
    EXPECT_EQ(resolve_service("    scale: 2")->replicas, 2U);
    EXPECT_EQ(resolve_service("    deploy: {}")->replicas, 1U);
}

TEST(ComposeReplicas, are_refused_with_their_place) {
    EXPECT_THAT(service_error("    deploy: {replicas: 0}"), StartsWith("hello.yaml:4:24: "));
    EXPECT_THAT(service_error("    deploy: {replicas: 129}"), StartsWith("hello.yaml:4:24: "));
    EXPECT_THAT(service_error("    deploy: {mode: global}"),
                testing::AllOf(StartsWith("hello.yaml:4:14: "), HasSubstr("mode")));
    EXPECT_THAT(service_error("    deploy: {replicas: 2}\n    scale: 2"),
                testing::AllOf(StartsWith("hello.yaml:5:12: "), HasSubstr("there twice")));
    EXPECT_THAT(service_error("    scale: 2\n    ports: ['80']"),
                testing::AllOf(StartsWith("hello.yaml:4:12: "), HasSubstr("would fight")));
    EXPECT_THAT(service_error("    scale: 100\n  other:\n    command: [x]\n    scale: 29"),
                testing::AllOf(StartsWith("hello.yaml:2:"), HasSubstr("not 129")));
}

TEST(ComposeLimits, a_bare_memory_number_is_bytes) {
    EXPECT_EQ(resolve_service("    mem_limit: 67108864")->memory_limit_bytes, 64U << 20);
    EXPECT_EQ(resolve_service("    mem_limit: 64m")->memory_limit_bytes, 64U << 20);
    EXPECT_EQ(resolve_service("    x-limits: {memory: 64MiB}")->memory_limit_bytes, 64U << 20);
}

TEST(ComposeLimits, twice_are_refused) {
    EXPECT_THAT(service_error("    mem_limit: 64m\n    x-limits: {memory: 64m}"),
                HasSubstr("there twice"));
}

TEST(ComposeLimits, pids_may_be_unlimited) {
    EXPECT_EQ(resolve_service("    pids_limit: 5")->pids_limit, 5U);
    EXPECT_EQ(resolve_service("    pids_limit: -1")->pids_limit, std::nullopt);
    EXPECT_THAT(service_error("    pids_limit: 0"), HasSubstr("not a whole number from 1"));
}

TEST(ComposeLimits, unknown_ones_are_refused) {
    EXPECT_THAT(service_error("    x-limits: {timeout: 5s}"),
                HasSubstr("'timeout' is not known for a program"));
}

TEST(ComposeService, takes_its_plain_fields) {
    const auto service = resolve_service(
        "    working_dir: /srv\n    user: \"1000:1000\"\n    stop_grace_period: 3s");
    ASSERT_TRUE(service);
    EXPECT_EQ(service->working_directory, "/srv");
    EXPECT_EQ(service->user, "1000:1000");
    EXPECT_EQ(service->stop_grace_period, 3s);
}

// ---- ports -------------------------------------------------------------------------------------

TEST(ComposePorts, take_the_short_and_the_long_form) {
    const auto resolved = resolve(R"(
services:
  a:
    command: x
    ports:
      - 8080:80
      - "443"
      - "0.0.0.0:53:53/udp"
      - {target: 90, published: "9000", host_ip: 127.0.0.2, protocol: tcp}
)");
    ASSERT_TRUE(resolved) << resolved.error().describe();
    EXPECT_THAT(resolved->ports, ElementsAre(PortMapping{Protocol::tcp, "127.0.0.1", 8080, 80},
                                             PortMapping{Protocol::tcp, "127.0.0.1", 0, 443},
                                             PortMapping{Protocol::udp, "0.0.0.0", 53, 53},
                                             PortMapping{Protocol::tcp, "127.0.0.2", 9000, 90}));
    EXPECT_THAT(resolved->app.services[0].ports, ElementsAre(80, 443, 53, 90));
}

TEST(ComposePorts, take_ranges_of_equal_length) {
    const auto resolved = resolve("services: {a: {command: x, ports: [\"3000-3001:80-81\"]}}");
    ASSERT_TRUE(resolved);
    EXPECT_THAT(resolved->ports, ElementsAre(PortMapping{Protocol::tcp, "127.0.0.1", 3000, 80},
                                             PortMapping{Protocol::tcp, "127.0.0.1", 3001, 81}));
}

TEST(ComposePorts, refuse_what_is_none) {
    for (const auto* port : {"a:80", "80:0", "80:65536", "1-2:80", "80:80/sctp", "::1:80:80",
                             "1.2.3:80:80", "", "80:1-9999", "2-1:1-2"})
        EXPECT_THAT(service_error(std::string("    ports: [\"") + port + "\"]"),
                    StartsWith("hello.yaml:4:13: "))
            << port;
}

TEST(ComposePorts, of_two_services_must_not_conflict) {
    EXPECT_THAT(error_of("services:\n  a: {command: x, ports: [\"80:80\"]}\n"
                         "  b: {command: y, ports: [\"0.0.0.0:80:81\"]}\n"),
                HasSubstr("cannot both be forwarded"));
}

// ---- volumes -----------------------------------------------------------------------------------

TEST(ComposeVolumes, mount_named_volumes) {
    const auto resolved = resolve("services: {a: {command: x, volumes: [\"data:/d:ro\", {type: "
                                  "volume, source: data, target: /e}]}}\nvolumes: {data: }\n");
    ASSERT_TRUE(resolved) << resolved.error().describe();
    EXPECT_THAT(resolved->app.volumes, ElementsAre("data"));
    const auto& mounts = resolved->app.services[0].mounts;
    EXPECT_TRUE(mounts[0].read_only);
    EXPECT_EQ(mounts[1].target, "/e");
    EXPECT_FALSE(mounts[1].is_file);
}

TEST(ComposeVolumes, that_are_not_declared_are_errors) {
    EXPECT_THAT(service_error("    volumes: [\"data:/d\"]"),
                StartsWith("hello.yaml:4:15: The volume 'data' is not declared"));
}

TEST(ComposeVolumes, deliver_files_with_their_hash) {
    const TemporaryDirectory dir;
    write(dir / "page", "abc");
    const auto resolved =
        resolve("services: {a: {command: x, volumes: [\"./page:/a\", \"./page:/b:ro\"]}}", {},
                dir / "c.yaml");
    ASSERT_TRUE(resolved) << resolved.error().describe();
    ASSERT_EQ(resolved->files.size(), 1U);
    EXPECT_EQ(resolved->files[0].path, canonical_path(dir / "page").value());
    EXPECT_EQ(resolved->files[0].entry.name, "./page");
    EXPECT_EQ(resolved->files[0].entry.size, 3U);
    // echo -n abc | sha256sum
    EXPECT_EQ(resolved->app.files[0].sha256,
              "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    EXPECT_TRUE(resolved->app.services[0].mounts[0].is_file);
}

TEST(ComposeVolumes, name_a_file_that_is_missing_with_place_and_path) {
    const TemporaryDirectory dir;
    const auto resolved =
        resolve("services: {a: {command: x, volumes: [\"./none:/a\"]}}", {}, dir / "c.yaml");
    ASSERT_FALSE(resolved);
    EXPECT_EQ(resolved.error().code, ErrorCode::not_found);
    EXPECT_THAT(resolved.error().message, HasSubstr("c.yaml:1:38: "));
    EXPECT_THAT(resolved.error().message, HasSubstr("none"));
}

TEST(ComposeVolumes, refuse_folders_and_odd_forms) {
    const TemporaryDirectory dir;
    ASSERT_TRUE(make_directories(dir / "site"));
    const auto resolved =
        resolve("services: {a: {command: x, volumes: [\"./site:/a\"]}}", {}, dir / "c.yaml");
    ASSERT_FALSE(resolved);
    EXPECT_THAT(resolved.error().message, HasSubstr("not a regular file"));
    for (const auto* volume : {"/data", "a:/b:rx", "a:b:c:d"})
        EXPECT_THAT(service_error(std::string("    volumes: [\"") + volume + "\"]"),
                    HasSubstr("is not a volume"))
            << volume;
}

TEST(ComposeVolumes, with_a_driver_are_refused) {
    EXPECT_THAT(error_of("services: {}\nvolumes: {a: {driver: nfs}}\n"),
                HasSubstr("'driver' is not known here"));
}

// ---- the examples ------------------------------------------------------------------------------

class Example : public testing::TestWithParam<const char*> {};

TEST_P(Example, resolves_for_our_guest) {
    const auto compose =
        load_compose(std::string(HOST_RUNNER_SOURCE_DIR) + "/configs/" + GetParam() + ".yaml");
    ASSERT_TRUE(compose) << compose.error().describe();
    const auto resolved = resolve_compose(*compose, {});
    ASSERT_TRUE(resolved) << resolved.error().describe();
    EXPECT_FALSE(resolved->app.services.empty());
}

INSTANTIATE_TEST_SUITE_P(Configs, Example,
                         testing::Values("batch", "dependencies", "hello", "restart", "volume"),
                         [](const auto& test_info) { return std::string(test_info.param); });

TEST(ExampleOfContainers, is_for_dstack_images_only) {
    const auto compose = load_compose(HOST_RUNNER_SOURCE_DIR "/configs/runner.yaml");
    ASSERT_TRUE(compose) << compose.error().describe();
    EXPECT_TRUE(compose->has_container_images);
    EXPECT_EQ(resolve_compose(*compose, {}).error().code, ErrorCode::unsupported);
}

} // namespace
} // namespace host_runner::spec

// SPDX-License-Identifier: Apache-2.0
#include "host_runner/cli/command_line.hpp"

#include <gmock/gmock.h>

namespace host_runner::cli {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

Invocation parse(const std::vector<std::string>& arguments) {
    return parse_command_line(arguments).value();
}

Error refused(const std::vector<std::string>& arguments) {
    const auto parsed = parse_command_line(arguments);
    EXPECT_FALSE(parsed);
    return parsed ? Error{} : parsed.error();
}

TEST(CommandLine, takes_verb_and_options_in_short_and_long_form) {
    const auto run = parse({"run", "-i", "image", "--memory", "4G", "--cpus=2"});
    EXPECT_EQ(run.verb->name, "run");
    EXPECT_THAT(run.options.at("image-path"), ElementsAre("image"));
    EXPECT_THAT(run.options.at("memory"), ElementsAre("4G"));
    EXPECT_THAT(run.options.at("cpus"), ElementsAre("2"));
    EXPECT_FALSE(run.options.contains("disk"));
}

TEST(CommandLine, lets_the_last_of_repeated_scalars_count) {
    EXPECT_EQ(parse({"run", "--tee", "none", "--tee", "tdx"}).options.at("tee").back(), "tdx");
}

TEST(CommandLine, keeps_every_value_of_a_list) {
    EXPECT_THAT(parse({"run", "-p", "tcp::1:1,tcp::2:2", "-p", "udp::3:3"}).options.at("ports"),
                ElementsAre("tcp::1:1,tcp::2:2", "udp::3:3"));
}

TEST(CommandLine, takes_the_log_level_before_and_after_the_verb) {
    EXPECT_THAT(parse({"-l", "debug", "list"}).options.at("log-level"), ElementsAre("debug"));
    EXPECT_THAT(parse({"list", "-l", "debug"}).options.at("log-level"), ElementsAre("debug"));
}

TEST(CommandLine, takes_flags_with_no_and_with_a_value) {
    EXPECT_THAT(parse({"run", "--detach"}).options.at("detach"), ElementsAre("true"));
    EXPECT_THAT(parse({"run", "--detach=false"}).options.at("detach"), ElementsAre("false"));
    EXPECT_THAT(parse({"run", "--local-key-provider"}).options.at("local-key-provider"),
                ElementsAre("true"));
    EXPECT_THAT(parse({"run", "--no-local-key-provider"}).options.at("local-key-provider"),
                ElementsAre("false"));
    EXPECT_THAT(parse({"run", "--local-key-provider=false"}).options.at("local-key-provider"),
                ElementsAre("false"));
    EXPECT_THAT(parse({"run", "--detach", "--detach=false"}).options.at("detach").back(), "false");
}

TEST(CommandLine, takes_verbs_of_two_words) {
    const auto verify = parse({"image", "verify", "some/folder", "--output", "json"});
    EXPECT_EQ(verify.verb->name, "image verify");
    EXPECT_THAT(verify.arguments, ElementsAre(ElementsAre("some/folder")));
    EXPECT_THAT(verify.options.at("output"), ElementsAre("json"));
}

TEST(CommandLine, leaves_all_after_the_dashes_to_the_guests_command) {
    const auto exec = parse({"exec", "web", "--", "/bin/sh", "-c", "exit 3", "--help"});
    EXPECT_FALSE(exec.help);
    EXPECT_THAT(exec.arguments,
                ElementsAre(ElementsAre("web"), ElementsAre("/bin/sh", "-c", "exit 3", "--help")));
}

TEST(CommandLine, takes_arguments_and_options_in_any_order) {
    const auto logs = parse({"logs", "web", "--tail", "1", "events"});
    EXPECT_THAT(logs.arguments, ElementsAre(ElementsAre("web"), ElementsAre("events")));
    EXPECT_THAT(parse({"logs", "web"}).arguments, ElementsAre(ElementsAre("web"), IsEmpty()));
}

TEST(CommandLine, takes_an_instance_that_is_called_like_a_verb) {
    EXPECT_THAT(parse({"inspect", "stop"}).arguments, ElementsAre(ElementsAre("stop")));
    EXPECT_THAT(parse({"rm", "run", "list"}).arguments, ElementsAre(ElementsAre("run", "list")));
}

TEST(CommandLine, knows_help_of_the_program_and_of_a_verb) {
    EXPECT_TRUE(parse({"--help"}).help);
    EXPECT_EQ(parse({"--help"}).verb, nullptr);
    EXPECT_TRUE(parse({"run", "-h"}).help);
    EXPECT_EQ(parse({"run", "-h"}).verb->name, "run");
    EXPECT_TRUE(parse({"image", "--help"}).help);
    EXPECT_TRUE(parse({"exec", "--help"}).help) << "although its arguments are missing";
}

TEST(CommandLine, knows_version) {
    EXPECT_TRUE(parse({"--version"}).version);
}

TEST(CommandLine, names_an_unknown_verb) {
    const auto error = refused({"lst"});
    EXPECT_EQ(error.code, ErrorCode::invalid_argument);
    EXPECT_EQ(error.message, "'lst' is not a verb");
    EXPECT_THAT(error.hint, HasSubstr("host_runner --help"));
}

TEST(CommandLine, names_an_unknown_option_and_its_verb) {
    const auto error = refused({"run", "-i", "image", "--memroy", "4G"});
    EXPECT_EQ(error.message, "Unknown option '--memroy' of run");
    EXPECT_THAT(error.hint, HasSubstr("host_runner run --help"));
    EXPECT_EQ(refused({"list", "--force"}).message, "Unknown option '--force' of list");
}

TEST(CommandLine, names_an_argument_too_many) {
    EXPECT_EQ(refused({"list", "web"}).message, "Unexpected argument 'web' of list");
    EXPECT_EQ(refused({"inspect", "web", "db"}).message, "Unexpected argument 'db' of inspect");
}

TEST(CommandLine, names_a_missing_argument) {
    EXPECT_THAT(refused({"inspect"}).message, HasSubstr("inspect needs ID"));
    EXPECT_THAT(refused({"exec", "web"}).message, HasSubstr("exec needs CMD"));
}

TEST(CommandLine, names_a_missing_value_with_an_example) {
    const auto error = refused({"run", "-i", "image", "--memory"});
    EXPECT_EQ(error.message, "--memory needs a value");
    EXPECT_EQ(error.hint, "for example --memory 32G");
}

TEST(CommandLine, names_an_argument_that_is_no_choice) {
    EXPECT_EQ(refused({"completion", "csh"}).message, "SHELL: 'csh' is not one of bash, zsh, fish");
    // A service's name is no choice of ours.
    EXPECT_THAT(parse({"logs", "web", "kernel"}).arguments,
                ElementsAre(ElementsAre("web"), ElementsAre("kernel")));
}

TEST(CommandLine, asks_for_a_verb) {
    EXPECT_EQ(refused({}).message, "A verb is missing");
    EXPECT_EQ(refused({"image"}).message, "A verb is missing after 'image'");
}

} // namespace
} // namespace host_runner::cli

// SPDX-License-Identifier: Apache-2.0
#include "host_runner/config/option_table.hpp"

#include <set>

#include <gmock/gmock.h>

namespace host_runner::config {
namespace {

using testing::ElementsAre;

TEST(OptionTable, gives_each_option_its_own_variable_and_key) {
    std::set<std::string> variables;
    std::set<std::string> keys;
    for (const auto& option : options()) {
        // run --stop-timeout and stop --timeout are the same limit, and share their variable.
        if (option.verb != "stop" || option.name != "timeout") {
            EXPECT_TRUE(variables.insert(environment_name(option)).second)
                << environment_name(option);
        }
        EXPECT_TRUE(keys.insert(config_key(option)).second) << config_key(option);
    }
}

TEST(OptionTable, uses_no_short_name_twice_in_one_command) {
    for (const auto& verb : verbs()) {
        std::set<char> used{'h'};
        for (const auto& option : options())
            if (option.short_name != 0 && belongs_to(option, verb.name)) {
                EXPECT_TRUE(used.insert(option.short_name).second)
                    << verb.name << " -" << option.short_name;
            }
    }
}

TEST(OptionTable, knows_the_verb_of_each_option) {
    for (const auto& option : options())
        for (const auto verb : verbs_of(option))
            EXPECT_NE(find_verb(verb), nullptr) << verb;
}

TEST(OptionTable, has_options_of_two_verbs) {
    EXPECT_EQ(find_option("run-wasm", "tee"), find_option("run", "tee"));
    EXPECT_EQ(find_option("doctor", "tee"), find_option("run", "tee"));
    EXPECT_EQ(find_option("doctor", "ports"), find_option("run", "ports"));
    EXPECT_EQ(find_option("run-wasm", "ports"), nullptr);
    EXPECT_EQ(find_option("run", "tee")->also, "run-wasm|doctor");
    EXPECT_THAT(verbs_of(*find_option("run", "tee")),
                testing::ElementsAre("run", "run-wasm", "doctor"));
    EXPECT_FALSE(belongs_to(*find_option("run", "tee"), "run-wasm|doctor"));
    EXPECT_FALSE(belongs_to(*find_option("run", "tee"), "wasm"));
    EXPECT_EQ(find_option("list", "tee"), nullptr);
    EXPECT_EQ(environment_name(*find_option("run-wasm", "tee")), "HOST_RUNNER_TEE");
    EXPECT_THAT(options_of(""), testing::SizeIs(1));
    EXPECT_THAT(options_of("run-wasm"), testing::Contains(find_option("run", "memory")));
}

TEST(OptionTable, has_a_value_name_and_an_example_for_all_but_flags) {
    for (const auto& option : options()) {
        EXPECT_EQ(option.value_name.empty(), option.kind == ValueKind::flag) << option.name;
        EXPECT_EQ(option.example.empty(), option.kind == ValueKind::flag) << option.name;
    }
}

TEST(OptionTable, has_defaults_and_examples_of_choices_that_are_choices) {
    for (const auto& option : options()) {
        if (option.kind != ValueKind::choice)
            continue;
        const auto words = choices(option.value_name);
        EXPECT_THAT(words, testing::Contains(option.example)) << option.name;
        if (!option.default_value.empty()) {
            EXPECT_THAT(words, testing::Contains(option.default_value)) << option.name;
        }
    }
}

TEST(OptionTable, keeps_the_names_and_defaults_that_users_know) {
    struct Known {
        std::string_view name;
        char short_name;
        std::string_view default_value;
    };
    for (const auto& known : {Known{"compose-path", 'c', "compose.yaml"},
                              {"image-path", 'i', ""},
                              {"cpus", 'u', "12"},
                              {"memory", 'm', "32G"},
                              {"disk", 'd', "500G"},
                              {"ports", 'p', ""},
                              {"gpus", 'g', ""},
                              {"local-key-provider", '\0', "true"},
                              {"pin-numa", '\0', "false"},
                              {"hugepage", '\0', "false"},
                              {"tee", '\0', "tdx"}}) {
        const auto* option = find_option("run", known.name);
        ASSERT_NE(option, nullptr) << known.name;
        EXPECT_EQ(option->short_name, known.short_name) << known.name;
        EXPECT_EQ(option->default_value, known.default_value) << known.name;
    }
    EXPECT_EQ(find_option("stop", "id")->short_name, 'i');
    EXPECT_EQ(find_option("stop", "all")->short_name, 'a');
    EXPECT_EQ(find_option("run", "log-level")->short_name, 'l');
}

TEST(OptionTable, names_variables_and_keys_after_the_verb_except_run) {
    EXPECT_EQ(environment_name(*find_option("run", "tee")), "HOST_RUNNER_TEE");
    EXPECT_EQ(environment_name(*find_option("run", "log-level")), "HOST_RUNNER_LOG_LEVEL");
    EXPECT_EQ(environment_name(*find_option("list", "output")), "HOST_RUNNER_LIST_OUTPUT");
    EXPECT_EQ(environment_name(*find_option("image import", "into")),
              "HOST_RUNNER_IMAGE_IMPORT_INTO");
    EXPECT_EQ(config_key(*find_option("run", "image-path")), "image-path");
    EXPECT_EQ(config_key(*find_option("image import", "into")), "image.import.into");
}

TEST(Choices, are_cut_at_bars) {
    EXPECT_THAT(choices("a|bc|d"), ElementsAre("a", "bc", "d"));
    EXPECT_THAT(choices(""), ElementsAre());
}

} // namespace
} // namespace host_runner::config

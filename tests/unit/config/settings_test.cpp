// SPDX-License-Identifier: Apache-2.0
#include "host_runner/config/settings.hpp"

#include <gmock/gmock.h>

#include "fakes/temporary_directory.hpp"
#include "host_runner/base/files.hpp"
#include "host_runner/base/units.hpp"

namespace host_runner::config {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using tests::TemporaryDirectory;

Environment environment(std::map<std::string, std::string> variables) {
    return [variables = std::move(variables)](const std::string& name) {
        const auto found = variables.find(name);
        return found == variables.end() ? std::nullopt : std::optional<std::string>(found->second);
    };
}

/// Two files in a folder of their own.
class SettingsTest : public testing::Test {
protected:
    void write_system(const std::string& text) {
        ASSERT_TRUE(write_file_atomic(files_.system, text));
    }
    void write_user(const std::string& text) {
        ASSERT_TRUE(write_file_atomic(files_.user, text));
    }
    [[nodiscard]] Result<Places> load(std::map<std::string, std::string> variables = {}) const {
        return Places::load(files_, environment(std::move(variables)));
    }
    [[nodiscard]] Setting tee(std::map<std::string, std::string> variables = {},
                              const std::vector<std::string>& command_line = {}) const {
        return load(std::move(variables)).value().settle(*find_option("run", "tee"), command_line);
    }
    [[nodiscard]] Error load_error() const {
        const auto loaded = load();
        EXPECT_FALSE(loaded);
        return loaded ? Error{} : loaded.error();
    }
    [[nodiscard]] Result<Settings> settle(const Settings::CommandLine& command_line,
                                          std::map<std::string, std::string> variables = {}) const {
        return Settings::settle("run", load(std::move(variables)).value(), command_line);
    }

    TemporaryDirectory directory_;
    ConfigFiles files_{directory_ / "system.toml", directory_ / "user.toml"};
};

TEST_F(SettingsTest, take_the_default_when_nothing_says_otherwise) {
    const auto setting = tee();
    EXPECT_THAT(setting.values, ElementsAre("tdx"));
    EXPECT_EQ(setting.origin, Origin::built_in);
}

TEST_F(SettingsTest, let_later_places_win) {
    write_system("tee = \"none\"\n");
    EXPECT_EQ(tee().origin, Origin::system_file);
    write_user("# a comment\ntee = \"tdx\"\n");
    EXPECT_EQ(tee().origin, Origin::user_file);
    EXPECT_EQ(tee().place, files_.user + ":2");
    EXPECT_EQ(tee({{"HOST_RUNNER_TEE", "none"}}).place, "HOST_RUNNER_TEE");
    EXPECT_EQ(tee({{"HOST_RUNNER_TEE", "none"}}, {"tdx"}).origin, Origin::command_line);
}

TEST_F(SettingsTest, read_every_kind_of_value_from_a_file) {
    write_user("memory = \"4G\"\ncpus = 2\nfirmware = true\n"
               "ports = [\"tcp::8080:80\", \"udp::53:53\"]\n[list]\nall = true\n");
    const auto places = load().value();
    EXPECT_THAT(places.settle(*find_option("run", "cpus")).values, ElementsAre("2"));
    EXPECT_THAT(places.settle(*find_option("run", "firmware")).values, ElementsAre("true"));
    EXPECT_THAT(places.settle(*find_option("run", "ports")).values,
                ElementsAre("tcp::8080:80", "udp::53:53"));
    EXPECT_THAT(places.settle(*find_option("list", "all")).values, ElementsAre("true"));
}

TEST_F(SettingsTest, refuse_an_unknown_key_with_file_line_and_column) {
    write_user("cpus = 2\nmemroy = \"4G\"\n");
    const auto error = load_error();
    EXPECT_EQ(error.code, ErrorCode::invalid_argument);
    EXPECT_EQ(error.message, files_.user + ":2:1: 'memroy' is not a setting");
}

TEST_F(SettingsTest, refuse_an_unknown_key_of_a_verb) {
    write_user("[list]\ntee = \"none\"\n");
    EXPECT_THAT(load_error().message, HasSubstr(":2:1: 'list.tee' is not a setting"));
}

TEST_F(SettingsTest, refuse_a_value_of_another_type_with_an_example) {
    write_user("ports = {}\n");
    const auto error = load_error();
    EXPECT_THAT(error.message, HasSubstr("'ports' has a value of another type"));
    EXPECT_THAT(error.hint, HasSubstr("ports = \"tcp::8080:80\""));
    write_user("firmware = 1\n");
    EXPECT_THAT(load_error().hint, HasSubstr("firmware = true"));
    write_user("cpus = [1, 2]\n");
    EXPECT_THAT(load_error().message, HasSubstr("'cpus'"));
}

TEST_F(SettingsTest, refuse_what_is_no_toml_with_its_position) {
    write_system("tee = none\n");
    EXPECT_THAT(load_error().message, HasSubstr(files_.system + ":1:"));
}

TEST_F(SettingsTest, refuse_a_file_above_the_cap) {
    write_user("# " + std::string(64UL * 1024, 'x'));
    EXPECT_EQ(load_error().code, ErrorCode::corrupt_data);
}

TEST_F(SettingsTest, refuse_a_word_that_is_no_choice_and_name_its_origin) {
    const auto settings = settle({}, {{"HOST_RUNNER_TEE", "sgx"}});
    ASSERT_FALSE(settings);
    EXPECT_EQ(settings.error().message,
              "--tee (from HOST_RUNNER_TEE): 'sgx' is not one of tdx, none");
}

TEST_F(SettingsTest, refuse_a_flag_that_is_neither_true_nor_false) {
    const auto settings = settle({{"firmware", {"maybe"}}});
    ASSERT_FALSE(settings);
    EXPECT_EQ(settings.error().message, "--firmware: 'maybe' is neither true nor false");
}

TEST_F(SettingsTest, put_option_and_origin_in_front_of_a_parsers_error) {
    write_user("memory = \"lots\"\n");
    const auto settings = settle({}).value();
    const auto bytes = settings.parsed("memory", parse_size);
    ASSERT_FALSE(bytes);
    EXPECT_THAT(bytes.error().message,
                HasSubstr("--memory (from " + files_.user + ":1): 'lots' is not a size"));
}

TEST_F(SettingsTest, take_the_last_value_of_a_scalar_and_all_of_a_list) {
    const auto settings = settle({{"memory", {"1G", "2G"}}, {"ports", {"a,b", "c"}}}).value();
    EXPECT_EQ(settings.parsed("memory", parse_size).value(), 2 * gib);
    const auto texts = settings.parsed_list(
        "ports", [](std::string_view text) -> Result<std::vector<std::string>> {
            return std::vector<std::string>{std::string(text)};
        });
    EXPECT_THAT(texts.value(), ElementsAre("a,b", "c"));
}

TEST_F(SettingsTest, tell_an_unset_option_from_an_empty_one) {
    EXPECT_FALSE(settle({}).value().is_set("name"));
    EXPECT_TRUE(settle({{"name", {""}}}).value().is_set("name"));
}

TEST(ConfigFiles, follow_the_xdg_specification) {
    EXPECT_EQ(config_files(environment({{"XDG_CONFIG_HOME", "/x"}, {"HOME", "/h"}})).user,
              "/x/host-runner/config.toml");
    EXPECT_EQ(config_files(environment({{"XDG_CONFIG_HOME", "rel"}, {"HOME", "/h"}})).user,
              "/h/.config/host-runner/config.toml");
    EXPECT_EQ(config_files(environment({})).user, "");
}

TEST(UnknownVariables, are_those_with_our_prefix_that_nothing_reads) {
    EXPECT_THAT(unknown_variables({"HOST_RUNNER_TEE", "HOST_RUNNER_TEEE", "HOST_RUNNER_HOME",
                                   "HOST_RUNNER_LIST_OUTPUT", "PATH"}),
                ElementsAre("HOST_RUNNER_TEEE"));
}

TEST(ParseFlag, takes_the_usual_words) {
    for (const char* text : {"true", "yes", "on", "1"})
        EXPECT_TRUE(parse_flag(text).value()) << text;
    for (const char* text : {"false", "no", "off", "0"})
        EXPECT_FALSE(parse_flag(text).value()) << text;
    EXPECT_FALSE(parse_flag("").has_value());
}

TEST(ParseCount, names_the_range) {
    EXPECT_EQ(parse_count("7", 1, 8).value(), 7U);
    for (const char* text : {"", "0", "9", "-1", "+1", "1.5", "x", "4294967297"})
        EXPECT_THAT(parse_count(text, 1, 8).error().message, HasSubstr("from 1 to 8")) << text;
}

} // namespace
} // namespace host_runner::config

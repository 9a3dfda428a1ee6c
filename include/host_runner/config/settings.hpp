// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The value of every option and where it comes from. Later places win:
///
///     default, /etc/host-runner/config.toml, the user's config.toml, HOST_RUNNER_*, command line
///
/// CLI11 can read files and variables by itself, but lets a file win over a variable and does not
/// tell which place a value came from; so it only parses the command line here.
///
///     HR_TRY(const auto places, Places::load(files, process_environment));
///     HR_TRY(const auto settings, Settings::settle("run", places, {{"memory", {"4G"}}}));
///     HR_TRY(const auto bytes, settings.parsed("memory", parse_size));

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "host_runner/base/error.hpp"
#include "host_runner/config/option_table.hpp"

namespace host_runner::config {

enum class Origin { built_in, system_file, user_file, environment, command_line };
[[nodiscard]] std::string_view to_string(Origin origin) noexcept;

/// The text of a variable; nullopt when it is not set.
using Environment = std::function<std::optional<std::string>(const std::string& name)>;
[[nodiscard]] std::optional<std::string> process_environment(const std::string& name);

/// Paths of the two configuration files; either may be missing. Empty: there is no such place.
struct ConfigFiles {
    std::string system = "/etc/host-runner/config.toml";
    std::string user;
};
/// The user's is $XDG_CONFIG_HOME/host-runner/config.toml, else ~/.config/host-runner/config.toml.
[[nodiscard]] ConfigFiles config_files(const Environment& environment);

struct Setting {
    const Option* option = nullptr;
    std::vector<std::string> values; ///< Empty: not set. More than one only of a list.
    Origin origin = Origin::built_in;
    std::string place; ///< "/etc/host-runner/config.toml:3", "HOST_RUNNER_TEE"; else empty.

    /// How a message names it: "--memory", or "--memory (from HOST_RUNNER_MEMORY)".
    [[nodiscard]] std::string described() const;
};

/// Everything but the command line.
class Places {
public:
    /// Reads the files (at most 64 KiB each).
    /// @errors invalid_argument: "FILE:LINE:COLUMN: ..." no TOML, an unknown key, a value of
    ///         another type; io_error, permission_denied: a file that is there cannot be read
    [[nodiscard]] static Result<Places> load(const ConfigFiles& files, Environment environment);

    /// `command_line` are the values given there; empty: none.
    [[nodiscard]] Setting settle(const Option& option,
                                 const std::vector<std::string>& command_line = {}) const;

private:
    std::map<const Option*, Setting> from_files_;
    Environment environment_;
};

/// The variables that begin with HOST_RUNNER_ but belong to no option and to nothing else of ours:
/// most likely misspelt. `names` are all variables' names.
[[nodiscard]] std::vector<std::string> unknown_variables(const std::vector<std::string>& names);

/// The options that hold for one verb, with checked flags and choices.
class Settings {
public:
    using CommandLine = std::map<std::string, std::vector<std::string>, std::less<>>;

    /// @errors invalid_argument: a flag that is no truth value, a word that is no choice
    [[nodiscard]] static Result<Settings> settle(std::string_view verb, const Places& places,
                                                 const CommandLine& command_line);

    /// The option must be in the table; a name that is not is a bug of ours.
    [[nodiscard]] const Setting& get(std::string_view name) const;
    [[nodiscard]] bool is_set(std::string_view name) const {
        return !get(name).values.empty();
    }
    [[nodiscard]] bool is_on(std::string_view flag) const;
    /// Empty when not set.
    [[nodiscard]] std::string text(std::string_view name) const;

    /// The value through a parser of its text; the option must be set. The parser's error gets the
    /// option's name and origin in front.
    template <class Parser>
    [[nodiscard]] auto parsed(std::string_view name, Parser&& parser) const
        -> decltype(parser(std::string_view())) {
        const auto& setting = get(name);
        HR_ASSERT(!setting.values.empty());
        return parser(std::string_view(setting.values.back())).map_error([&](Error error) {
            return in_context(setting, std::move(error));
        });
    }
    /// As parsed(), or nullopt when the option is not set.
    template <class Parser>
    [[nodiscard]] auto parsed_if_set(std::string_view name, Parser&& parser) const
        -> Result<std::optional<typename decltype(parser(std::string_view()))::value_type>> {
        if (!is_set(name))
            return std::nullopt;
        HR_TRY(auto value, parsed(name, std::forward<Parser>(parser)));
        return value;
    }
    /// All values of a list through a parser that gives a vector for each text.
    template <class Parser>
    [[nodiscard]] auto parsed_list(std::string_view name, Parser&& parser) const
        -> decltype(parser(std::string_view())) {
        const auto& setting = get(name);
        typename decltype(parser(std::string_view()))::value_type all;
        for (const auto& value : setting.values) {
            auto some = parser(std::string_view(value)).map_error([&](Error error) {
                return in_context(setting, std::move(error));
            });
            if (!some)
                return some;
            all.insert(all.end(), some->begin(), some->end());
        }
        return all;
    }

    [[nodiscard]] static Error in_context(const Setting& setting, Error error);

private:
    std::map<std::string, Setting, std::less<>> settings_;
};

/// "true", "false", "yes", "no", "on", "off", "1", "0" in lower case. @errors invalid_argument
[[nodiscard]] Result<bool> parse_flag(std::string_view text);

/// A whole number from `least` to `most`. @errors invalid_argument: names both
[[nodiscard]] Result<std::uint32_t> parse_count(std::string_view text, std::uint32_t least,
                                                std::uint32_t most);

} // namespace host_runner::config

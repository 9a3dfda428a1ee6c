// SPDX-License-Identifier: Apache-2.0
#include "host_runner/config/settings.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>

#include <fmt/ranges.h>
// Header-only, so that no process loads a library for it.
#include <toml++/toml.h>

#include "host_runner/base/files.hpp"

namespace host_runner::config {

namespace {

constexpr std::size_t max_file_bytes = 64UL * 1024;

/// Variables with our prefix that are no options: the state folder, the build's cache, and what
/// the project's own tests read.
constexpr auto other_variables = std::to_array<std::string_view>(
    {"HOST_RUNNER_HOME", "HOST_RUNNER_CACHE", "HOST_RUNNER_BIN", "HOST_RUNNER_IMAGE",
     "HOST_RUNNER_DEV_IMAGE", "HOST_RUNNER_UPDATE_GOLDEN"});

/// "FILE:LINE:COLUMN"
std::string position(const std::string& path, const toml::source_region& source) {
    return fmt::format("{}:{}:{}", path, source.begin.line, source.begin.column);
}

const Option* option_for_key(std::string_view key) {
    const auto all = options();
    const auto found = std::find_if(
        all.begin(), all.end(), [&](const Option& option) { return config_key(option) == key; });
    return found == all.end() ? nullptr : &*found;
}

/// True for "list", "image", "image.import": where options of verbs stand.
bool is_table_of_options(std::string_view key) {
    const auto all = options();
    return std::any_of(all.begin(), all.end(), [&](const Option& option) {
        return config_key(option).starts_with(std::string(key) + ".");
    });
}

/// A file's values on their way into settings.
class FileReader {
public:
    FileReader(std::string path, Origin origin, std::map<const Option*, Setting>& settings)
        : path_(std::move(path)), origin_(origin), settings_(settings) {}

    Result<void> read(const toml::table& table, const std::string& prefix) {
        for (const auto& [key, node] : table) {
            const auto name = prefix + std::string(key.str());
            if (const auto* inner = node.as_table(); inner && is_table_of_options(name)) {
                HR_CHECK(read(*inner, name + "."));
                continue;
            }
            const auto* option = option_for_key(name);
            if (option == nullptr)
                return fail(
                    ErrorCode::invalid_argument,
                    fmt::format("{}: '{}' is not a setting", position(path_, key.source()), name),
                    "`host_runner config show` lists them; options of verbs other than "
                    "run stand in a table, e.g. [list]");
            HR_TRY(auto values, values_of(*option, name, node));
            settings_[option] = {option, std::move(values), origin_,
                                 fmt::format("{}:{}", path_, key.source().begin.line)};
        }
        return {};
    }

private:
    [[nodiscard]] Result<std::vector<std::string>>
    values_of(const Option& option, const std::string& name, const toml::node& node) const {
        std::vector<std::string> values;
        if (const auto* array = node.as_array(); array && option.kind == ValueKind::list) {
            for (const auto& element : *array) {
                HR_TRY(auto value, value_of(option, name, element));
                values.push_back(std::move(value));
            }
            return values;
        }
        HR_TRY(auto value, value_of(option, name, node));
        values.push_back(std::move(value));
        return values;
    }

    [[nodiscard]] Result<std::string> value_of(const Option& option, const std::string& name,
                                               const toml::node& node) const {
        if (const auto* text = node.as_string())
            return text->get();
        if (const auto* number = node.as_integer(); number && option.kind != ValueKind::flag)
            return std::to_string(number->get());
        if (const auto* truth = node.as_boolean(); truth && option.kind == ValueKind::flag)
            return std::string(truth->get() ? "true" : "false");
        const std::string example = option.kind == ValueKind::flag
                                        ? fmt::format("{} = true", option.name)
                                        : fmt::format("{} = \"{}\"", option.name, option.example);
        return fail(ErrorCode::invalid_argument,
                    fmt::format("{}: '{}' has a value of another type",
                                position(path_, node.source()), name),
                    fmt::format("for example {}", example));
    }

    std::string path_;
    Origin origin_;
    std::map<const Option*, Setting>& settings_;
};

Result<void> read_config_file(const std::string& path, Origin origin,
                              std::map<const Option*, Setting>& settings) {
    if (path.empty())
        return {};
    const auto text = read_file(path, max_file_bytes);
    if (!text && text.error().code == ErrorCode::not_found)
        return {};
    if (!text)
        return tl::unexpected<Error>(text.error());
    try {
        return FileReader(path, origin, settings).read(toml::parse(*text, path), "");
    } catch (const toml::parse_error& problem) {
        return fail(ErrorCode::invalid_argument,
                    fmt::format("{}: {}", position(path, problem.source()), problem.description()),
                    "the file must be TOML, e.g. tee = \"none\"");
    }
}

} // namespace

std::string_view to_string(Origin origin) noexcept {
    switch (origin) {
    case Origin::built_in:
        return "default";
    case Origin::system_file:
        return "system file";
    case Origin::user_file:
        return "user's file";
    case Origin::environment:
        return "environment";
    case Origin::command_line:
        return "command line";
    }
    return "?";
}

std::optional<std::string> process_environment(const std::string& name) {
    const char* value = std::getenv(name.c_str());
    return value == nullptr ? std::nullopt : std::optional<std::string>(value);
}

ConfigFiles config_files(const Environment& environment) {
    constexpr std::string_view name = "host-runner/config.toml";
    ConfigFiles files;
    // The XDG base directory specification: a relative path counts as unset.
    if (const auto folder = environment("XDG_CONFIG_HOME"); folder && folder->starts_with('/'))
        files.user = join_path(*folder, name);
    else if (const auto home = environment("HOME"); home && !home->empty())
        files.user = join_path(join_path(*home, ".config"), name);
    return files;
}

std::string Setting::described() const {
    return place.empty() ? fmt::format("--{}", option->name)
                         : fmt::format("--{} (from {})", option->name, place);
}

Result<Places> Places::load(const ConfigFiles& files, Environment environment) {
    Places places;
    places.environment_ = std::move(environment);
    HR_CHECK(read_config_file(files.system, Origin::system_file, places.from_files_));
    HR_CHECK(read_config_file(files.user, Origin::user_file, places.from_files_));
    return places;
}

Setting Places::settle(const Option& option, const std::vector<std::string>& command_line) const {
    if (!command_line.empty())
        return {&option, command_line, Origin::command_line, {}};
    const auto variable = environment_name(option);
    if (auto value = environment_(variable))
        return {&option, {std::move(*value)}, Origin::environment, variable};
    if (const auto found = from_files_.find(&option); found != from_files_.end())
        return found->second;
    Setting setting{&option, {}, Origin::built_in, {}};
    if (!option.default_value.empty())
        setting.values.emplace_back(option.default_value);
    return setting;
}

std::vector<std::string> unknown_variables(const std::vector<std::string>& names) {
    const auto all = options();
    std::vector<std::string> unknown;
    std::copy_if(names.begin(), names.end(), std::back_inserter(unknown),
                 [&](const std::string& name) {
                     return name.starts_with("HOST_RUNNER_") &&
                            std::find(other_variables.begin(), other_variables.end(), name) ==
                                other_variables.end() &&
                            std::none_of(all.begin(), all.end(), [&](const Option& option) {
                                return environment_name(option) == name;
                            });
                 });
    return unknown;
}

Result<Settings> Settings::settle(std::string_view verb, const Places& places,
                                  const CommandLine& command_line) {
    Settings settings;
    const auto take = [&](const Option& option) -> Result<void> {
        const auto given = command_line.find(option.name);
        auto setting = places.settle(
            option, given == command_line.end() ? std::vector<std::string>{} : given->second);
        if (option.kind == ValueKind::flag) {
            if (auto flag = parse_flag(setting.values.back()); !flag)
                return tl::unexpected<Error>(in_context(setting, std::move(flag).error()));
        } else if (option.kind == ValueKind::choice && !setting.values.empty()) {
            const auto words = choices(option.value_name);
            if (std::find(words.begin(), words.end(), setting.values.back()) == words.end())
                return tl::unexpected<Error>(in_context(
                    setting, {ErrorCode::invalid_argument,
                              fmt::format("'{}' is not one of {}", setting.values.back(),
                                          fmt::join(words, ", ")),
                              fmt::format("for example --{} {}", option.name, option.example), 0}));
        }
        settings.settings_.emplace(option.name, std::move(setting));
        return {};
    };
    for (const auto& option : options())
        if (belongs_to(option, verb))
            HR_CHECK(take(option));
    return settings;
}

const Setting& Settings::get(std::string_view name) const {
    const auto found = settings_.find(name);
    HR_ASSERT(found != settings_.end());
    return found->second;
}

bool Settings::is_on(std::string_view flag) const {
    return parse_flag(get(flag).values.back()).value();
}

std::string Settings::text(std::string_view name) const {
    const auto& values = get(name).values;
    return values.empty() ? std::string() : values.back();
}

Error Settings::in_context(const Setting& setting, Error error) {
    error.message = fmt::format("{}: {}", setting.described(), error.message);
    return error;
}

Result<bool> parse_flag(std::string_view text) {
    for (const std::string_view word : {"true", "yes", "on", "1"})
        if (text == word)
            return true;
    for (const std::string_view word : {"false", "no", "off", "0"})
        if (text == word)
            return false;
    return fail(ErrorCode::invalid_argument, fmt::format("'{}' is neither true nor false", text),
                "write true or false");
}

Result<std::uint32_t> parse_count(std::string_view text, std::uint32_t least, std::uint32_t most) {
    std::uint32_t number = 0;
    const auto* end = text.data() + text.size();
    const auto [stop, problem] = std::from_chars(text.data(), end, number);
    if (problem != std::errc{} || stop != end || number < least || number > most)
        return fail(ErrorCode::invalid_argument,
                    fmt::format("'{}' is not a whole number from {} to {}", text, least, most),
                    fmt::format("for example {}", std::max(least, std::min(4U, most))));
    return number;
}

} // namespace host_runner::config

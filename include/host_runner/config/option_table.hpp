// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The one table of verbs and options. The command line's parser, the keys of the configuration
/// files, the names of environment variables, --help, the man page and the shell completions are
/// all made from it.
///
///     for (const auto& option : options_of("run"))
///         fmt::print("--{} or {}\n", option.name, environment_name(option));

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace host_runner::config {

enum class ValueKind {
    flag,   ///< --name, --no-name, --name=true|false
    text,   ///< One value; given twice, the last one counts.
    choice, ///< One of the words in value_name.
    list,   ///< Repeatable, and lists with commas.
};

struct Option {
    std::string_view verb = {}; ///< "" for the options of every verb.
    std::string_view name = {}; ///< Without dashes.
    char short_name = 0;        ///< 0: none.
    ValueKind kind = ValueKind::text;
    std::string_view value_name = {};    ///< In help, e.g. "SIZE"; of a choice "tdx|none".
    std::string_view default_value = {}; ///< As a user would write it; empty: none.
    std::string_view group = {};         ///< Heading in help and man page.
    std::string_view help = {};          ///< A sentence without its final stop.
    std::string_view example = {}; ///< A value, for messages and the man page; empty: of a flag.
    std::string_view also = {};    ///< Other verbs with this option, "run-wasm|doctor": one
                                   ///< setting for all.
};

struct Positional {
    std::string_view name = {}; ///< e.g. "ID"
    std::string_view help = {};
    bool required = true;
    bool repeated = false;
    std::string_view choices = {}; ///< "serial|qemu|events"; empty: anything.
    bool is_instance = false;      ///< For completion.
    bool takes_others = false;     ///< `choices` are not all there is.
};

struct Example {
    std::string_view command = {};
    std::string_view meaning = {};
};

struct Verb {
    std::string_view name;         ///< One word, or two for a verb below another: "image verify".
    std::string_view summary = {}; ///< A line for the list of verbs.
    std::string_view description = {};
    std::vector<Positional> positionals = {};
    std::vector<Example> examples = {};
};

/// Whether the option is one of this verb's, or of every verb.
[[nodiscard]] constexpr bool belongs_to(const Option& option, std::string_view verb) noexcept {
    if (option.verb.empty() || option.verb == verb)
        return true;
    for (auto rest = option.also; !verb.empty() && !rest.empty();) {
        const auto end = rest.find('|') == std::string_view::npos ? rest.size() : rest.find('|');
        if (rest.substr(0, end) == verb)
            return true;
        rest.remove_prefix(end < rest.size() ? end + 1 : end);
    }
    return false;
}

/// In the order of help and man page.
[[nodiscard]] std::span<const Verb> verbs();
/// nullptr when there is none of that name.
[[nodiscard]] const Verb* find_verb(std::string_view name);

/// All options, those of every verb first.
[[nodiscard]] std::span<const Option> options();
/// The options of one verb ("" = those of every verb), in the table's order.
[[nodiscard]] std::vector<const Option*> options_of(std::string_view verb);
/// nullptr when neither the verb nor every verb has an option of that name.
[[nodiscard]] const Option* find_option(std::string_view verb, std::string_view name);

/// The verbs that have this option, its own first; none for an option of every verb.
[[nodiscard]] std::vector<std::string_view> verbs_of(const Option& option);

/// The words of a choice: "tdx|none" -> {"tdx", "none"}.
[[nodiscard]] std::vector<std::string_view> choices(std::string_view words);

/// HOST_RUNNER_TEE for `run --tee`, HOST_RUNNER_LOG_LEVEL, HOST_RUNNER_LIST_OUTPUT for
/// `list --output`: the verb's name stands in it, except that of `run`.
[[nodiscard]] std::string environment_name(const Option& option);

/// Where the option stands in a configuration file: "tee" for `run` and for the options of every
/// verb, "list.output" for `list --output`, "image.import.into" for a verb of two words.
[[nodiscard]] std::string config_key(const Option& option);

} // namespace host_runner::config

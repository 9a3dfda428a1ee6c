// SPDX-License-Identifier: Apache-2.0
#include "host_runner/cli/command_line.hpp"

#include <algorithm>
#include <map>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <fmt/ranges.h>

namespace host_runner::cli {

namespace {

/// CLI11's objects for the table's rows.
struct Parser {
    CLI::App app;
    std::map<std::string_view, CLI::App*, std::less<>> verbs; ///< Also "image" and "config".
    /// By verb too: some options are those of two verbs.
    std::map<std::pair<std::string_view, const config::Option*>, CLI::Option*> options;
    std::map<std::string_view, std::vector<CLI::Option*>, std::less<>> positionals;
    std::vector<CLI::Option*> help;
    CLI::Option* version = nullptr;
};

/// Texts are ours (config/documents.hpp), so CLI11 gets none; extras are kept, to be named in our
/// own words.
void prepare(CLI::App& app, Parser& parser) {
    app.set_help_flag();
    app.allow_extras();
    parser.help.push_back(app.add_flag("-h,--help"));
}

void add_option(CLI::App& app, std::string_view verb, const config::Option& option,
                Parser& parser) {
    std::string names = option.short_name == 0 ? "" : fmt::format("-{},", option.short_name);
    names += fmt::format("--{}", option.name);
    CLI::Option* added = nullptr;
    if (option.kind == config::ValueKind::flag)
        added = app.add_flag(fmt::format("{},!--no-{}", names, option.name));
    else
        added = app.add_option(names);
    added->multi_option_policy(option.kind == config::ValueKind::list
                                   ? CLI::MultiOptionPolicy::TakeAll
                                   : CLI::MultiOptionPolicy::TakeLast);
    parser.options[{verb, &option}] = added;
}

CLI::App& add_verb_app(CLI::App& parent, std::string_view name, Parser& parser,
                       std::string_view whole_name) {
    auto& app = *parent.add_subcommand(std::string(name));
    prepare(app, parser);
    app.fallthrough(); // so that -l may stand after the verb too
    parser.verbs[whole_name] = &app;
    return app;
}

void add_verb(const config::Verb& verb, Parser& parser) {
    const auto space = verb.name.find(' ');
    CLI::App* parent = &parser.app;
    if (space != std::string_view::npos) {
        const auto first = verb.name.substr(0, space);
        if (!parser.verbs.contains(first))
            add_verb_app(parser.app, first, parser, first).require_subcommand(0, 1);
        parent = parser.verbs.at(first);
    }
    auto& app = add_verb_app(
        *parent, space == std::string_view::npos ? verb.name : verb.name.substr(space + 1), parser,
        verb.name);
    for (const auto* option : config::options_of(verb.name))
        add_option(app, verb.name, *option, parser);
    for (const auto& positional : verb.positionals) {
        auto* added = app.add_option(std::string(positional.name));
        if (positional.repeated)
            added->expected(-1)->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
        parser.positionals[verb.name].push_back(added);
    }
}

void build(Parser& parser) {
    prepare(parser.app, parser);
    // At most one: what looks like a verb after a verb is an argument of it.
    parser.app.require_subcommand(0, 1);
    parser.version = parser.app.add_flag("--version");
    for (const auto* option : config::options_of(""))
        add_option(parser.app, "", *option, parser);
    for (const auto& verb : config::verbs())
        add_verb(verb, parser);
}

tl::unexpected<Error> misuse(std::string message, std::string_view verb) {
    return fail(ErrorCode::invalid_argument, std::move(message),
                verb.empty() ? "host_runner --help lists verbs and options"
                             : fmt::format("host_runner {} --help lists options", verb));
}

/// The name of the last verb app that was used: "", "image" or "image verify".
std::string_view used_verb(const Parser& parser) {
    std::string_view used;
    for (const auto& [name, app] : parser.verbs)
        if (app->parsed() && name.size() > used.size())
            used = name;
    return used;
}

/// CLI11 names an option in its own way in each kind of error; its text is kept as the cause.
tl::unexpected<Error> explain(const CLI::ParseError& problem, const Parser& parser) {
    const auto verb = used_verb(parser);
    const std::string text = problem.what();
    if (dynamic_cast<const CLI::ArgumentMismatch*>(&problem) != nullptr)
        for (const auto& [key, parsed] : parser.options)
            if (text.starts_with(parsed->get_name() + ":"))
                return fail(
                    ErrorCode::invalid_argument,
                    fmt::format("--{} needs a value", key.second->name),
                    fmt::format("for example --{} {}", key.second->name, key.second->example));
    return misuse(fmt::format("The command line cannot be read: {}", text), verb);
}

Result<void> refuse_extras(const Parser& parser, std::string_view verb) {
    const auto extras = parser.app.remaining(true);
    // CLI11 counts the dashes before arguments among them.
    const auto found = std::find_if(extras.begin(), extras.end(),
                                    [](const std::string& extra) { return extra != "--"; });
    if (found == extras.end())
        return {};
    const auto& extra = *found;
    if (verb.empty() && !extra.starts_with('-'))
        return misuse(fmt::format("'{}' is not a verb", extra), verb);
    if (extra.starts_with('-'))
        return misuse(verb.empty() ? fmt::format("Unknown option '{}'", extra)
                                   : fmt::format("Unknown option '{}' of {}", extra, verb),
                      verb);
    return misuse(fmt::format("Unexpected argument '{}' of {}", extra, verb), verb);
}

Result<Invocation> collect(const Parser& parser) {
    Invocation invocation;
    const auto used = used_verb(parser);
    invocation.verb = config::find_verb(used);
    invocation.help = std::any_of(parser.help.begin(), parser.help.end(),
                                  [](const auto* flag) { return flag->count() > 0; });
    invocation.version = parser.version->count() > 0;
    if (invocation.help || invocation.version)
        return invocation;
    HR_CHECK(refuse_extras(parser, used));
    if (invocation.verb == nullptr)
        return misuse(used.empty() ? "A verb is missing"
                                   : fmt::format("A verb is missing after '{}'", used),
                      "");
    for (const auto& [key, parsed] : parser.options)
        if ((key.first.empty() || key.first == used) && parsed->count() > 0)
            invocation.options.emplace(key.second->name, parsed->results());
    const auto parsed = parser.positionals.find(used);
    for (std::size_t i = 0; i < invocation.verb->positionals.size(); ++i) {
        const auto& positional = invocation.verb->positionals[i];
        const auto values = parsed->second.at(i)->results();
        if (positional.required && values.empty())
            return misuse(fmt::format("{} needs {}: {}", used, positional.name, positional.help),
                          used);
        if (const auto words = config::choices(positional.choices);
            !values.empty() && !words.empty() && !positional.takes_others &&
            std::find(words.begin(), words.end(), values.front()) == words.end())
            return misuse(fmt::format("{}: '{}' is not one of {}", positional.name, values.front(),
                                      fmt::join(words, ", ")),
                          used);
        invocation.arguments.push_back(values);
    }
    return invocation;
}

} // namespace

Result<Invocation> parse_command_line(const std::vector<std::string>& arguments) {
    Parser parser;
    try {
        build(parser);
        // CLI11 takes them from the end.
        parser.app.parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));
        return collect(parser);
    } catch (const CLI::ParseError& problem) {
        return explain(problem, parser);
    } catch (const CLI::Error& problem) {
        return fail(ErrorCode::internal,
                    fmt::format("The option table cannot be used: {}", problem.what()),
                    "report this as a bug");
    }
}

} // namespace host_runner::cli

// SPDX-License-Identifier: Apache-2.0
#include "host_runner/config/documents.hpp"

#include <algorithm>
#include <vector>

#include <fmt/format.h>

#include "host_runner/base/exit_code.hpp"
#include "host_runner/base/version.hpp"

namespace host_runner::config {

namespace {

constexpr std::size_t width = 100;
constexpr std::size_t help_column = 34;

/// Words in lines of at most `width`, the first of which begins at `column` already; later ones
/// are indented to `indent`.
std::string wrap(std::string_view text, std::size_t column, std::size_t indent) {
    std::string result;
    std::size_t used = column;
    while (!text.empty()) {
        const auto end = std::min(text.find(' '), text.size());
        const auto word = text.substr(0, end);
        if (used > indent && used + 1 + word.size() > width) {
            result += '\n' + std::string(indent, ' ');
            used = indent;
        } else if (used > indent) {
            result += ' ';
            ++used;
        }
        result += word;
        used += word.size();
        text.remove_prefix(std::min(end + 1, text.size()));
    }
    return result;
}

std::string row(const std::string& left, std::string_view help) {
    std::string line = left;
    if (line.size() + 2 > help_column)
        line += '\n' + std::string(help_column, ' ');
    else
        line.resize(help_column, ' ');
    return line + wrap(help, help_column, help_column) + '\n';
}

/// A flag that is on by itself is shown with the word that turns it off.
bool is_on_by_default(const Option& option) {
    return option.kind == ValueKind::flag && option.default_value == "true";
}

/// "-m, --memory SIZE"
std::string usage_of(const Option& option) {
    std::string text = option.short_name == 0 ? "" : fmt::format("-{}, ", option.short_name);
    text += fmt::format("--{}{}", is_on_by_default(option) ? "[no-]" : "", option.name);
    if (!option.value_name.empty())
        text += fmt::format(" {}", option.value_name);
    return text;
}

/// The help with the default, where there is one to tell.
std::string help_of(const Option& option) {
    if (option.kind == ValueKind::flag)
        return std::string(option.help);
    if (option.default_value.empty())
        return std::string(option.help);
    return fmt::format("{} [{}]", option.help, option.default_value);
}

std::string option_rows(std::string_view verb) {
    std::string text;
    std::string_view group;
    for (const auto* option : options_of(verb)) {
        if (option->group != group) {
            group = option->group;
            text += fmt::format("\n{}:\n", group);
        }
        const auto left = usage_of(*option);
        text += row((option->short_name == 0 ? "      " : "  ") + left, help_of(*option));
    }
    return text;
}

std::string usage_of(const Verb& verb) {
    std::string text = fmt::format("host_runner {}", verb.name);
    if (!options_of(verb.name).empty())
        text += " [OPTION...]";
    for (const auto& positional : verb.positionals) {
        // What stands after -- belongs to another program.
        const auto* const marker = positional.name == "CMD" ? "-- " : "";
        const auto name =
            fmt::format("{}{}{}", marker, positional.name, positional.repeated ? "..." : "");
        text += positional.required ? " " + name : " [" + name + "]";
    }
    return text;
}

std::string exit_codes() {
    std::string text = "\nExit codes:\n";
    for (const auto& code : exit_code_table())
        text += row(fmt::format("  {:<4}{}", static_cast<int>(code.code), code.name), code.meaning);
    return text;
}

std::string positional_help(const Positional& positional) {
    if (positional.choices.empty())
        return std::string(positional.help);
    return fmt::format("{}: {}", positional.help, positional.choices);
}

// --- man page ------------------------------------------------------------------------------------

/// Text for roff: no line may begin with a control character, and '-' must stay a minus sign.
std::string roff(std::string_view text) {
    std::string result;
    for (const char c : text) {
        if (c == '\\')
            result += "\\e";
        else if (c == '-')
            result += "\\-";
        else
            result += c;
    }
    if (result.starts_with('.') || result.starts_with('\''))
        result.insert(0, "\\&");
    return result;
}

std::string man_options(std::string_view verb) {
    std::string text;
    for (const auto* option : options_of(verb)) {
        text += fmt::format(".TP\n.B {}\n{}.\n", roff(usage_of(*option)), roff(help_of(*option)));
        if (!option->example.empty())
            text += fmt::format("Example: {}.\n",
                                roff(fmt::format("--{} {}", option->name, option->example)));
        text += fmt::format("Also {} and the setting {}.\n", roff(environment_name(*option)),
                            roff(config_key(*option)));
    }
    return text;
}

std::string man_verb(const Verb& verb) {
    std::string text =
        fmt::format(".SS {}\n.B {}\n.PP\n{}.\n{}\n", roff(verb.name), roff(usage_of(verb)),
                    roff(verb.summary), roff(verb.description));
    for (const auto& positional : verb.positionals)
        text += fmt::format(".TP\n.I {}\n{}.\n", roff(positional.name),
                            roff(positional_help(positional)));
    text += man_options(verb.name);
    for (const auto& example : verb.examples) {
        text += fmt::format(".PP\n.EX\n{}\n.EE\n", roff(example.command));
        if (!example.meaning.empty())
            text += fmt::format("({})\n", roff(example.meaning));
    }
    return text;
}

// --- completions ---------------------------------------------------------------------------------

/// What a value may be, for the shells.
enum class Completes { words, files, folders, instances, anything };

Completes completes(const Option& option) {
    if (option.kind == ValueKind::choice)
        return Completes::words;
    if (option.value_name == "FILE" || option.value_name == "PATH")
        return Completes::files;
    if (option.value_name == "DIR")
        return Completes::folders;
    if (option.value_name == "ID")
        return Completes::instances;
    return Completes::anything;
}

Completes completes(const Positional& positional) {
    if (positional.is_instance)
        return Completes::instances;
    if (!positional.choices.empty())
        return Completes::words;
    if (positional.name == "DIR")
        return Completes::folders;
    return Completes::files;
}

std::string words_of(std::string_view choice) {
    std::string words(choice);
    std::replace(words.begin(), words.end(), '|', ' ');
    return words;
}

/// Every option of a verb and those of all verbs.
std::vector<const Option*> with_general(std::string_view verb) {
    auto found = options_of(verb);
    const auto general = options_of("");
    found.insert(found.end(), general.begin(), general.end());
    return found;
}

/// First words of the verbs, each once: "run list ... image config completion".
std::vector<std::string_view> first_words() {
    std::vector<std::string_view> words;
    for (const auto& verb : verbs()) {
        const auto word = verb.name.substr(0, verb.name.find(' '));
        if (std::find(words.begin(), words.end(), word) == words.end())
            words.push_back(word);
    }
    return words;
}

/// The verbs of two words below a first one, e.g. "image verify" and "image inspect".
std::vector<const Verb*> verbs_below(std::string_view word) {
    std::vector<const Verb*> found;
    for (const auto& verb : verbs())
        if (verb.name.starts_with(std::string(word) + " "))
            found.push_back(&verb);
    return found;
}

/// "image", "gpu" and their like: the same second word may be a verb by itself.
std::vector<std::string_view> words_above_others() {
    auto words = first_words();
    std::erase_if(words, [](std::string_view word) { return verbs_below(word).empty(); });
    return words;
}

std::string_view second_word(const Verb& verb) {
    return verb.name.substr(verb.name.find(' ') + 1);
}

std::vector<std::string_view> second_words(const std::vector<const Verb*>& below) {
    std::vector<std::string_view> words(below.size());
    std::transform(below.begin(), below.end(), words.begin(),
                   [](const Verb* verb) { return second_word(*verb); });
    return words;
}

std::string join(const std::vector<std::string_view>& words) {
    return fmt::format("{}", fmt::join(words, " "));
}

std::string bash_value(Completes kind, std::string_view words) {
    switch (kind) {
    case Completes::words:
        return fmt::format("COMPREPLY=($(compgen -W '{}' -- \"$cur\"))", words);
    case Completes::files:
        return "COMPREPLY=($(compgen -f -- \"$cur\"))";
    case Completes::folders:
        return "COMPREPLY=($(compgen -d -- \"$cur\"))";
    case Completes::instances:
        return "COMPREPLY=($(compgen -W \"$(_host_runner_ids)\" -- \"$cur\"))";
    case Completes::anything:
        break;
    }
    return "COMPREPLY=()";
}

constexpr std::string_view list_ids =
    "host_runner list --all --output table 2>/dev/null | awk 'NR > 1 && $1 ~ /^[0-9a-f]+$/ "
    "{ print $1 }'";

std::string bash_completion() {
    std::string text = fmt::format("# bash completion for host_runner\n\n"
                                   "_host_runner_ids() {{\n    {}\n}}\n\n"
                                   "_host_runner() {{\n"
                                   "    local cur=${{COMP_WORDS[COMP_CWORD]}} "
                                   "prev=${{COMP_WORDS[COMP_CWORD-1]}} verb= word i\n"
                                   "    for ((i = 1; i < COMP_CWORD; i++)); do\n"
                                   "        word=${{COMP_WORDS[i]}}\n"
                                   "        case $word in\n"
                                   "            -l|--log-level) ((i++)) ;;\n"
                                   "            -*) ;;\n",
                                   list_ids);
    for (const auto word : first_words())
        if (!verbs_below(word).empty())
            text += fmt::format("            {}) verb=\"$word ${{COMP_WORDS[i+1]}}\"\n"
                                "                ((i + 1 < COMP_CWORD)) || verb=$word\n"
                                "                break ;;\n",
                                word);
    text += "            *) verb=$word; break ;;\n"
            "        esac\n"
            "    done\n"
            "    case \"$verb $prev\" in\n";
    for (const auto& option : options()) {
        if (option.kind == ValueKind::flag)
            continue;
        std::string pattern;
        for (const auto verb : verbs_of(option)) {
            pattern += fmt::format("{}'{} --{}'", pattern.empty() ? "" : "|", verb, option.name);
            if (option.short_name != 0)
                pattern += fmt::format("|'{} -{}'", verb, option.short_name);
        }
        if (option.verb.empty())
            pattern = fmt::format("*' --{}'|*' -{}'", option.name, option.short_name);
        text += fmt::format("        {}) {}; return ;;\n", pattern,
                            bash_value(completes(option), words_of(option.value_name)));
    }
    text += "    esac\n    case $verb in\n";
    text += fmt::format("        '') COMPREPLY=($(compgen -W '{} --help --version --log-level' -- "
                        "\"$cur\")) ;;\n",
                        join(first_words()));
    for (const auto word : first_words()) {
        if (const auto below = verbs_below(word); !below.empty())
            text += fmt::format("        {}) {} ;;\n", word,
                                bash_value(Completes::words, join(second_words(below))));
    }
    for (const auto& verb : verbs()) {
        std::string names = "--help";
        for (const auto* option : with_general(verb.name))
            names += fmt::format(" --{}", option->name);
        text += fmt::format("        '{}')\n            if [[ $cur == -* ]]; then {}", verb.name,
                            bash_value(Completes::words, names));
        if (!verb.positionals.empty()) {
            // The last one answers for all further places; the first is told apart by its place.
            const auto& first = verb.positionals.front();
            const auto& last = verb.positionals.back();
            if (verb.positionals.size() > 1)
                text += fmt::format("\n            elif [[ $prev != \"${{verb##* }}\" ]]; then {}",
                                    bash_value(completes(last), words_of(last.choices)));
            text += fmt::format("\n            else {}",
                                bash_value(completes(first), words_of(first.choices)));
        }
        text += "; fi ;;\n";
    }
    text += "    esac\n}\ncomplete -o filenames -F _host_runner host_runner\n";
    return text;
}

/// For single quotes in zsh and fish.
std::string quoted(std::string_view text) {
    std::string result;
    for (const char c : text)
        if (c == '\'')
            result += "'\\''";
        else
            result += c;
    return result;
}

/// For a description inside zsh's _arguments: ':', '[' and ']' mean something there.
std::string zsh_text(std::string_view text) {
    std::string result;
    for (const char c : quoted(text)) {
        if (c == ':' || c == '[' || c == ']')
            result += '\\';
        result += c;
    }
    return result;
}

std::string zsh_value(Completes kind, std::string_view words) {
    switch (kind) {
    case Completes::words:
        return fmt::format("({})", words);
    case Completes::files:
        return "_files";
    case Completes::folders:
        return "_files -/";
    case Completes::instances:
        return "_host_runner_ids";
    case Completes::anything:
        break;
    }
    return " ";
}

std::string zsh_arguments(const Verb& verb) {
    std::string text = "_arguments -s '(- *)'{-h,--help}'[Show help]'";
    for (const auto* option : with_general(verb.name)) {
        const auto value =
            option->kind == ValueKind::flag
                ? std::string()
                : fmt::format(":{}:{}",
                              zsh_text(option->kind == ValueKind::choice ? option->name
                                                                         : option->value_name),
                              zsh_value(completes(*option), words_of(option->value_name)));
        const auto repeat = option->kind == ValueKind::list ? "*" : "";
        const auto rest = fmt::format("[{}]{}'", zsh_text(option->help), value);
        text += fmt::format(" \\\n                '{}--{}{}", repeat, option->name, rest);
        if (option->short_name != 0)
            text += fmt::format(" \\\n                '{}-{}{}", repeat, option->short_name, rest);
    }
    for (std::size_t i = 0; i < verb.positionals.size(); ++i) {
        const auto& positional = verb.positionals[i];
        text += fmt::format(" \\\n                '{}:{}:{}'",
                            positional.repeated ? "*" : std::to_string(i + 1),
                            zsh_text(positional.name),
                            zsh_value(completes(positional), words_of(positional.choices)));
    }
    return text;
}

std::string zsh_completion() {
    std::string text = fmt::format("#compdef host_runner\n\n"
                                   "_host_runner_ids() {{\n    compadd -- $({})\n}}\n\n"
                                   "_host_runner() {{\n"
                                   "    local context state line verb\n"
                                   "    typeset -A opt_args\n"
                                   "    local -a words_here\n",
                                   list_ids);
    const auto& general = *options_of("").front();
    text += fmt::format("    _arguments -C '(- *)'{{-h,--help}}'[Show help]' '(- *)--version[Show "
                        "versions]' '--{0}[{1}]:{0}:({2})' '-{3}[{1}]:{0}:({2})' '1:verb:->verb' "
                        "'*::argument:->rest'\n",
                        general.name, zsh_text(general.help), words_of(general.value_name),
                        general.short_name);
    text += "    case $state in\n        verb)\n            words_here=(";
    for (const auto word : first_words()) {
        const auto below = verbs_below(word);
        const auto summary = below.empty() ? find_verb(word)->summary : below.front()->summary;
        text += fmt::format(" '{}:{}'", word, zsh_text(summary));
    }
    text += " )\n            _describe verb words_here ;;\n"
            "        rest)\n            verb=$words[1]\n            case $verb in\n";
    for (const auto word : first_words()) {
        if (const auto below = verbs_below(word); !below.empty()) {
            text += fmt::format("            {})\n                if (( CURRENT == 2 )); then "
                                "compadd {}; return; fi\n                shift words; (( CURRENT-- "
                                "))\n                case $words[1] in\n",
                                word, join(second_words(below)));
            for (const auto* verb : below)
                text += fmt::format("                {}) {} ;;\n", second_word(*verb),
                                    zsh_arguments(*verb));
            text += "                esac ;;\n";
        } else {
            text += fmt::format("            {})\n                {} ;;\n", word,
                                zsh_arguments(*find_verb(word)));
        }
    }
    text += "            esac ;;\n    esac\n}\n\n"
            "if [[ $funcstack[1] == _host_runner ]]; then _host_runner \"$@\"; "
            "else compdef _host_runner host_runner; fi\n";
    return text;
}

std::string fish_value(Completes kind, std::string_view words) {
    switch (kind) {
    case Completes::words:
        return fmt::format(" -x -a '{}'", words);
    case Completes::files:
        return " -r -F";
    case Completes::folders:
        return " -x -a '(__fish_complete_directories)'";
    case Completes::instances:
        return " -x -a '(__host_runner_ids)'";
    case Completes::anything:
        break;
    }
    return " -x";
}

std::string fish_option(const Option& option, std::string_view condition) {
    return fmt::format(
        "complete -c host_runner{}{} -l {}{} -d '{}'\n", condition,
        option.short_name == 0 ? "" : fmt::format(" -s {}", option.short_name), option.name,
        option.kind == ValueKind::flag ? ""
                                       : fish_value(completes(option), words_of(option.value_name)),
        quoted(option.help));
}

std::string fish_completion() {
    std::string text = fmt::format("# fish completion for host_runner\n\n"
                                   "function __host_runner_ids\n    {}\nend\n\n"
                                   "complete -c host_runner -f\n"
                                   "complete -c host_runner -s h -l help -d 'Show help'\n"
                                   "complete -c host_runner -n __fish_use_subcommand -l version "
                                   "-d 'Show versions'\n",
                                   list_ids);
    for (const auto* option : options_of(""))
        text += fish_option(*option, "");
    for (const auto word : first_words()) {
        const auto below = verbs_below(word);
        const auto summary = below.empty() ? find_verb(word)->summary : below.front()->summary;
        text += fmt::format("complete -c host_runner -n __fish_use_subcommand -a {} -d '{}'\n",
                            word, quoted(summary));
        for (const auto* verb : below)
            text += fmt::format("complete -c host_runner -n '__fish_seen_subcommand_from {}; and "
                                "not __fish_seen_subcommand_from {}' -a {} -d '{}'\n",
                                word, join(second_words(below)), second_word(*verb),
                                quoted(verb->summary));
    }
    for (const auto& verb : verbs()) {
        // "inspect" is a verb, and "image inspect" another one.
        const auto space = verb.name.find(' ');
        const auto condition = space == std::string_view::npos
                                   ? fmt::format(" -n '__fish_seen_subcommand_from {}; and not "
                                                 "__fish_seen_subcommand_from {}'",
                                                 verb.name, join(words_above_others()))
                                   : fmt::format(" -n '__fish_seen_subcommand_from {}; and "
                                                 "__fish_seen_subcommand_from {}'",
                                                 verb.name.substr(0, space), second_word(verb));
        for (const auto* option : options_of(verb.name))
            text += fish_option(*option, condition);
        for (const auto& positional : verb.positionals)
            if (const auto kind = completes(positional); kind != Completes::anything)
                text += fmt::format(
                    "complete -c host_runner{}{}\n", condition,
                    kind == Completes::files
                        ? " -F"
                        : fish_value(kind, words_of(positional.choices)).replace(0, 3, " "));
    }
    return text;
}

} // namespace

std::string format_help() {
    std::string text = "Usage: host_runner [-l LEVEL] VERB [OPTION...]\n\n"
                       "Runs confidential VMs (Intel TDX): one foreground command per VM, no "
                       "daemon.\n\nVerbs:\n";
    for (const auto& verb : verbs())
        text += row(fmt::format("  {}", verb.name), verb.summary);
    text += option_rows("");
    text += row("  -h, --help", "Show this, or the help of a verb: host_runner VERB --help");
    text += row("      --version", "Show the versions of host_runner and its libraries");
    text += "\n" +
            wrap("Every option can also be set in /etc/host-runner/config.toml, in the user's own "
                 "~/.config/host-runner/config.toml and by a HOST_RUNNER_* variable; `host_runner "
                 "config show` lists them.",
                 0, 0) +
            "\n";
    return text + exit_codes();
}

std::string format_help(const Verb& verb) {
    std::string text = fmt::format("Usage: {}\n\n{}.\n{}\n", usage_of(verb), verb.summary,
                                   wrap(verb.description, 0, 0));
    if (!verb.positionals.empty())
        text += "\nArguments:\n";
    for (const auto& positional : verb.positionals)
        text += row(fmt::format("  {}", positional.name), positional_help(positional));
    text += option_rows(verb.name);
    text += option_rows("");
    text += row("  -h, --help", "Show this");
    text += "\nExamples:\n";
    for (const auto& example : verb.examples)
        text += example.meaning.empty()
                    ? fmt::format("  {}\n", example.command)
                    : fmt::format("  {}\n      {}\n", example.command, example.meaning);
    if (verb.name == "run" || verb.name == "wait")
        return text + exit_codes();
    return text + "\n`host_runner --help` lists the exit codes.\n";
}

std::string format_man_page() {
    std::string text = fmt::format(
        ".TH HOST_RUNNER 1 \"\" \"host_runner {}\" \"User Commands\"\n"
        ".nh\n.ad l\n"
        ".SH NAME\nhost_runner \\- run confidential virtual machines (Intel TDX)\n"
        ".SH SYNOPSIS\n.B host_runner\n[\\-l LEVEL] VERB [OPTION...]\n"
        ".SH DESCRIPTION\n"
        "Starts a VM from an image directory and a compose file, supervises it in the foreground, "
        "and ends with it. There is no daemon: \\fBlist\\fR, \\fBstop\\fR and the other verbs find "
        "the VMs that run by their state folder.\n"
        ".PP\nThe default \\fB\\-\\-tee tdx\\fR never falls back to a VM without protection.\n"
        ".SH OPTIONS\n",
        version);
    text += man_options("");
    text += ".TP\n.B \\-h, \\-\\-help\nShow help, of a verb after its name.\n"
            ".TP\n.B \\-\\-version\nShow the versions of host_runner and its libraries.\n"
            ".SH VERBS\n";
    for (const auto& verb : verbs())
        text += man_verb(verb);
    text += ".SH CONFIGURATION\n"
            "Later places win: /etc/host\\-runner/config.toml, "
            "$XDG_CONFIG_HOME/host\\-runner/config.toml (~/.config/host\\-runner/config.toml), "
            "HOST_RUNNER_* variables, the command line. The files are TOML. Options of \\fBrun\\fR "
            "stand at the top, those of another verb in a table of its name. An unknown key is an "
            "error.\n.PP\n.EX\n"
            "tee = \"none\"\nmemory = \"4G\"\nports = [\"tcp::8080:80\"]\n\n[list]\noutput = "
            "\"json\"\n.EE\n"
            ".SH ENVIRONMENT\n.TP\n.B HOST_RUNNER_HOME\n"
            "The state folder, an absolute path.\n"
            ".TP\n.B HOST_RUNNER_*\nOne for each option, named with it above.\n"
            ".SH FILES\n.TP\n.I /var/lib/host\\-runner\nState folder of root.\n"
            ".TP\n.I ~/.local/state/host\\-runner\nState folder of other users "
            "($XDG_STATE_HOME/host\\-runner).\n"
            ".TP\n.I qemu_stdout.log, qemu_stderr.log\nWhat QEMU printed, in the folder in which "
            "\\fBrun\\fR was started.\n"
            ".SH EXIT STATUS\n";
    for (const auto& code : exit_code_table())
        text += fmt::format(".TP\n.B {} ({})\n{}.\n", static_cast<int>(code.code), roff(code.name),
                            roff(code.meaning));
    text += ".SH LIMITS\nLinux on x86\\-64. Bridges, services of the host and the release of keys "
            "are parsed and refused in this version. GPUs were tried against a synthetic machine "
            "only.\n"
            ".SH SEE ALSO\n.BR qemu\\-system\\-x86_64 (1)\n";
    return text;
}

Result<std::string> format_completion(std::string_view shell) {
    if (shell == "bash")
        return bash_completion();
    if (shell == "zsh")
        return zsh_completion();
    if (shell == "fish")
        return fish_completion();
    return fail(ErrorCode::invalid_argument,
                fmt::format("'{}' is not a shell with a completion", shell),
                "use bash, zsh or fish, e.g. host_runner completion bash");
}

} // namespace host_runner::config

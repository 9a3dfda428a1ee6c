// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include <fmt/format.h>

#include "host_runner/base/files.hpp"
#include "host_runner/base/units.hpp"
#include "host_runner/protocol/app_compose.hpp"
#include "host_runner/spec/compose.hpp"
#include "text.hpp"

namespace host_runner::spec {

namespace {

constexpr std::size_t max_env_file_bytes = 64 * kib;

bool is_variable_name(std::string_view name) {
    return !name.empty() && !(name.front() >= '0' && name.front() <= '9') &&
           std::all_of(name.begin(), name.end(),
                       [](char c) { return is_alphanumeric(c) || c == '_'; });
}

/// The value after "=": nullopt for a quote that does not end.
std::optional<std::string> parse_value(std::string_view text) {
    text = trim(text);
    if (text.empty() || (text.front() != '\'' && text.front() != '"')) {
        // " #" begins a comment.
        for (std::size_t i = 1; i < text.size(); ++i)
            if (text[i] == '#' && (text[i - 1] == ' ' || text[i - 1] == '\t'))
                return std::string(trim(text.substr(0, i)));
        return std::string(text);
    }
    const char quote = text.front();
    std::string value;
    for (std::size_t i = 1; i < text.size(); ++i) {
        if (text[i] == quote) {
            const auto rest = trim(text.substr(i + 1));
            if (rest.empty() || rest.front() == '#')
                return value;
            return std::nullopt;
        }
        if (text[i] != '\\' || quote == '\'' || i + 1 == text.size()) {
            value += text[i];
            continue;
        }
        const char next = text[++i];
        if (next == 'n')
            value += '\n';
        else if (next == '"' || next == '\\' || next == '$')
            value += next;
        else
            value.append({'\\', next});
    }
    return std::nullopt;
}

} // namespace

Result<std::map<std::string, std::string>> load_env_file(const std::string& path) {
    HR_TRY(const auto text, read_file(path, max_env_file_bytes));
    return parse_env_file(path, text);
}

Result<std::map<std::string, std::string>> parse_env_file(const std::string& path,
                                                          std::string_view text) {
    std::map<std::string, std::string> variables;
    std::size_t number = 0;
    for (auto line : split(text, '\n')) {
        ++number;
        const auto bad = [&](std::string_view why) {
            return fail(ErrorCode::invalid_argument, fmt::format("{}:{}: {}", path, number, why),
                        "write NAME=value, one per line; # begins a comment");
        };
        if (!line.empty() && line.back() == '\r')
            line.remove_suffix(1);
        line = trim(line);
        if (line.empty() || line.front() == '#')
            continue;
        if (!protocol::is_plain_text(line))
            return bad("The line is not UTF-8 text");
        const auto equals = line.find('=');
        if (equals == std::string_view::npos)
            return bad(fmt::format("'{}' has no value", line));
        const std::string name(trim(line.substr(0, equals)));
        if (!is_variable_name(name))
            return bad(fmt::format("'{}' is not a variable's name", name));
        auto value = parse_value(line.substr(equals + 1));
        if (!value)
            return bad(fmt::format("The quotes of {} do not end, or text follows them", name));
        variables[name] = std::move(*value); // as with Docker, the last one counts
    }
    return variables;
}

} // namespace host_runner::spec

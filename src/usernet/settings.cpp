// SPDX-License-Identifier: Apache-2.0
#include "host_runner/usernet/settings.hpp"

#include <algorithm>
#include <charconv>
#include <limits>
#include <string_view>

#include <fmt/format.h>

namespace host_runner::usernet {

namespace {

constexpr std::string_view ready_word = "ready";
constexpr std::string_view port_word = "port ";
constexpr std::string_view failed_word = "failed ";

tl::unexpected<Error> bad_word(std::string_view word, std::string_view what) {
    return fail(ErrorCode::invalid_argument, fmt::format("'{}' is not {}", word, what));
}

template <class Number>
Result<Number> parse_number(std::string_view word, Number least, std::string_view what) {
    Number number = 0;
    const auto [end, problem] = std::from_chars(word.data(), word.data() + word.size(), number);
    if (problem != std::errc{} || end != word.data() + word.size() || number < least)
        return bad_word(word, what);
    return number;
}

/// The text up to the end of its first line.
std::string first_line(std::string_view text) {
    return std::string(text.substr(0, std::min(text.find('\n'), text.size())));
}

} // namespace

std::vector<std::string> to_arguments(const Settings& settings) {
    std::vector<std::string> words;
    if (settings.egress)
        words.emplace_back("--egress");
    for (const auto port : settings.host_services)
        words.insert(words.end(), {"--host-service", std::to_string(port)});
    for (const auto& mapping : settings.ports)
        words.insert(words.end(), {"--port", spec::format_port_mapping(mapping)});
    if (settings.user)
        words.insert(words.end(), {"--user", std::to_string(*settings.user)});
    return words;
}

Result<Settings> parse_arguments(const std::vector<std::string>& words) {
    Settings settings;
    for (auto word = words.begin(); word != words.end(); ++word) {
        if (*word == "--egress") {
            settings.egress = true;
            continue;
        }
        const auto value = word + 1;
        if (value == words.end())
            return bad_word(*word, "an option of user_network with its value");
        if (*word == "--host-service") {
            HR_TRY(const auto port, parse_number<std::uint16_t>(*value, 1, "a TCP port"));
            settings.host_services.push_back(port);
        } else if (*word == "--port") {
            HR_TRY(const auto mappings, spec::parse_port_mappings(*value));
            settings.ports.insert(settings.ports.end(), mappings.begin(), mappings.end());
        } else if (*word == "--user") {
            HR_TRY(settings.user, parse_number<uid_t>(*value, 1, "a user's number"));
        } else {
            return bad_word(*word, "an option of user_network");
        }
        word = value;
    }
    return settings;
}

std::string format_status(const Status& status) {
    switch (status.kind) {
    case Status::Kind::ready:
        return fmt::format("{}\n", ready_word);
    case Status::Kind::port_taken:
        return fmt::format("{}{}\n", port_word, first_line(status.text));
    case Status::Kind::failed:
        break;
    }
    return fmt::format("{}{}\n", failed_word, first_line(status.text));
}

Status parse_status(std::string_view text) {
    const auto line = first_line(text);
    if (line == ready_word && text.size() > line.size())
        return {Status::Kind::ready, {}};
    if (line.starts_with(port_word))
        return {Status::Kind::port_taken, line.substr(port_word.size())};
    if (line.starts_with(failed_word))
        return {Status::Kind::failed, line.substr(failed_word.size())};
    return {Status::Kind::failed, line.empty() ? "it ended without a word" : line};
}

} // namespace host_runner::usernet

// SPDX-License-Identifier: Apache-2.0
#include "shell_words.hpp"

#include <fmt/format.h>

namespace host_runner::spec {

Result<std::vector<std::string>> split_words(std::string_view text) {
    constexpr std::string_view blanks = " \t\n";
    constexpr std::string_view escaped_in_double_quotes = "\"\\$`\n";
    std::vector<std::string> words;
    std::string word;
    bool in_word = false; // an empty quoted word counts
    char quote = '\0';
    for (std::size_t i = 0; i < text.size(); ++i) {
        const char c = text[i];
        if (quote == '\0' && blanks.find(c) != std::string_view::npos) {
            if (in_word)
                words.push_back(std::move(word));
            word.clear();
            in_word = false;
            continue;
        }
        in_word = true;
        if (c == quote) {
            quote = '\0';
        } else if (quote == '\0' && (c == '\'' || c == '"')) {
            quote = c;
        } else if (c == '\\' && quote != '\'') {
            if (i + 1 == text.size())
                return fail(ErrorCode::invalid_argument,
                            fmt::format("The command '{}' ends in a backslash", text));
            const char next = text[i + 1];
            if (quote == '"' && escaped_in_double_quotes.find(next) == std::string_view::npos) {
                word += c;
                continue;
            }
            ++i;
            if (next != '\n') // a continued line
                word += next;
        } else {
            word += c;
        }
    }
    if (quote != '\0')
        return fail(ErrorCode::invalid_argument,
                    fmt::format("The command '{}' has an open {} quote", text,
                                quote == '"' ? "double" : "single"));
    if (in_word)
        words.push_back(std::move(word));
    return words;
}

} // namespace host_runner::spec

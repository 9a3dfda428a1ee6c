// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <string_view>

#include "host_runner/qemu/launch_plan.hpp"

namespace host_runner::qemu {

namespace {

/// Characters that no POSIX shell treats specially anywhere in a word. "~" matters at a word's
/// start and behind "=" or ":", so it is left out.
bool is_plain(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view("_-./,:=@%+").find(c) != std::string_view::npos;
}

/// A first word with "=" would be an assignment.
bool needs_quotes(const std::string& word, bool is_first) {
    return word.empty() || !std::all_of(word.begin(), word.end(), is_plain) ||
           (is_first && word.find('=') != std::string::npos);
}

std::string quote(const std::string& word) {
    std::string quoted = "'";
    for (const char c : word) {
        if (c == '\'')
            quoted += "'\\''";
        else
            quoted += c;
    }
    return quoted + "'";
}

} // namespace

std::string shell_quote(const std::vector<std::string>& argv) {
    std::string line;
    for (std::size_t i = 0; i < argv.size(); ++i) {
        if (i > 0)
            line += ' ';
        line += needs_quotes(argv[i], i == 0) ? quote(argv[i]) : argv[i];
    }
    return line;
}

} // namespace host_runner::qemu

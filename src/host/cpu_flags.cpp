// SPDX-License-Identifier: Apache-2.0
#include "host_runner/host/cpu_flags.hpp"

#include <algorithm>
#include <string_view>

#include "first_processor.hpp"

namespace host_runner::host {

namespace {

/// The value of the first complete line "flags : ...", or nothing.
std::string_view find_flags_line(std::string_view text) {
    while (!text.empty()) {
        const auto end = text.find('\n');
        if (end == std::string_view::npos)
            return {};
        const auto line = text.substr(0, end);
        text.remove_prefix(end + 1);
        const auto colon = line.find(':');
        if (colon != std::string_view::npos &&
            (line.starts_with("flags\t") || line.starts_with("flags ")))
            return line.substr(colon + 1);
    }
    return {};
}

std::set<std::string, std::less<>> split_words(std::string_view text) {
    std::set<std::string, std::less<>> words;
    while (!text.empty()) {
        const auto end = std::min(text.find(' '), text.size());
        if (end > 0)
            words.emplace(text.substr(0, end));
        text.remove_prefix(std::min(end + 1, text.size()));
    }
    return words;
}

} // namespace

Result<std::set<std::string, std::less<>>> read_cpu_flags(const HostRoot& root) {
    HR_TRY(const auto text, read_first_processor(root));
    return split_words(find_flags_line(text));
}

} // namespace host_runner::host

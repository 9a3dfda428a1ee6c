// SPDX-License-Identifier: Apache-2.0
#include "host_runner/host/cpu_flags.hpp"

#include <array>
#include <cerrno>
#include <string_view>

#include <fcntl.h>
#include <unistd.h>

#include <fmt/format.h>

#include "host_runner/base/unique_fd.hpp"

namespace host_runner::host {

namespace {

/// More than one processor's part of /proc/cpuinfo ever had.
constexpr std::size_t max_start_bytes = 64 << 10;

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
    const auto path = root.path("/proc/cpuinfo");
    const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd)
        return fail_errno(fmt::format("Cannot open {}", path), errno);
    std::string text;
    while (text.size() < max_start_bytes) {
        std::array<char, 4096> block{};
        const auto count = ::read(fd.get(), block.data(), block.size());
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return fail_errno(fmt::format("Cannot read {}", path), errno);
        if (count == 0)
            break;
        text.append(block.data(), static_cast<std::size_t>(count));
        if (const auto flags = find_flags_line(text); !flags.empty())
            return split_words(flags);
    }
    return std::set<std::string, std::less<>>();
}

} // namespace host_runner::host

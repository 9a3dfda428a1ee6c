// SPDX-License-Identifier: Apache-2.0
#include "meminfo.hpp"

#include <algorithm>
#include <charconv>

#include <fmt/format.h>

#include "host_runner/base/units.hpp"

namespace host_runner::host {

Result<std::uint64_t> find_meminfo_line(std::string_view text, std::string_view key) {
    while (!text.empty()) {
        const auto end = std::min(text.find('\n'), text.size());
        auto line = text.substr(0, end);
        text.remove_prefix(std::min(end + 1, text.size()));
        if (!line.starts_with(key))
            continue;
        line.remove_prefix(key.size());
        line.remove_prefix(std::min(line.find_first_not_of(' '), line.size()));
        std::uint64_t kibibytes = 0;
        const auto [stop, error] =
            std::from_chars(line.data(), line.data() + line.size(), kibibytes);
        if (error == std::errc() && kibibytes < (std::uint64_t{1} << 53))
            return kibibytes * kib;
        break;
    }
    return fail(ErrorCode::corrupt_data, fmt::format("meminfo has no valid line {}", key));
}

} // namespace host_runner::host

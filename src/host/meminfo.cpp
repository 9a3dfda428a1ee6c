// SPDX-License-Identifier: Apache-2.0
#include "meminfo.hpp"

#include <fmt/format.h>

#include "host_runner/base/units.hpp"
#include "parse.hpp"

namespace host_runner::host {

Result<std::uint64_t> find_meminfo_line(std::string_view text, std::string_view key) {
    while (!text.empty()) {
        auto line = next_line(text);
        if (!line.starts_with(key))
            continue;
        line.remove_prefix(key.size());
        const auto kibibytes = parse_number<std::uint64_t>(next_word(line), 10);
        if (kibibytes && *kibibytes < (std::uint64_t{1} << 53))
            return *kibibytes * kib;
        break;
    }
    return fail(ErrorCode::corrupt_data, fmt::format("meminfo has no valid line {}", key));
}

} // namespace host_runner::host

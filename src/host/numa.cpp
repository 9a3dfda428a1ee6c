// SPDX-License-Identifier: Apache-2.0
#include "host_runner/host/numa.hpp"

#include <algorithm>
#include <charconv>

#include <fmt/format.h>

#include "host_runner/base/files.hpp"
#include "host_runner/base/units.hpp"
#include "meminfo.hpp"

namespace host_runner::host {

namespace {

constexpr std::size_t max_numbers = 65536;
constexpr std::string_view nodes_directory = "/sys/devices/system/node";

} // namespace

Result<std::vector<std::uint32_t>> parse_number_list(std::string_view text) {
    const auto wrong = [whole = text] {
        return fail(ErrorCode::corrupt_data,
                    fmt::format("'{}' is not a list of numbers as the kernel writes it", whole));
    };
    while (text.ends_with('\n'))
        text.remove_suffix(1);
    std::vector<std::uint32_t> numbers;
    if (text.empty())
        return numbers;
    const auto* at = text.data();
    const auto* const end = text.data() + text.size();
    for (;;) {
        std::uint32_t first = 0;
        auto parsed = std::from_chars(at, end, first);
        if (parsed.ec != std::errc())
            return wrong();
        auto last = first;
        if (parsed.ptr != end && *parsed.ptr == '-')
            parsed = std::from_chars(parsed.ptr + 1, end, last);
        if (parsed.ec != std::errc() || last < first || last - first >= max_numbers ||
            (!numbers.empty() && first <= numbers.back()))
            return wrong();
        for (auto number = first; number <= last; ++number)
            numbers.push_back(number);
        if (numbers.size() > max_numbers)
            return wrong();
        if (parsed.ptr == end)
            return numbers;
        if (*parsed.ptr != ',')
            return wrong();
        at = parsed.ptr + 1;
    }
}

std::string format_number_list(const std::vector<std::uint32_t>& numbers) {
    std::string text;
    for (std::size_t i = 0; i < numbers.size();) {
        auto last = i;
        while (last + 1 < numbers.size() && numbers[last + 1] == numbers[last] + 1)
            ++last;
        text += text.empty() ? "" : ",";
        text += last == i ? fmt::format("{}", numbers[i])
                          : fmt::format("{}-{}", numbers[i], numbers[last]);
        i = last + 1;
    }
    return text;
}

Result<std::vector<NumaNode>> read_numa_nodes(const HostRoot& root) {
    const auto folder = root.path(nodes_directory);
    const auto online = read_file(join_path(folder, "online"), 64 * kib);
    if (!online && online.error().code == ErrorCode::not_found)
        return std::vector<NumaNode>();
    if (!online)
        return tl::unexpected<Error>(online.error());
    HR_TRY(const auto numbers, parse_number_list(*online));
    std::vector<NumaNode> nodes;
    for (const auto number : numbers) {
        NumaNode node;
        node.node = number;
        const auto name = fmt::format("node{}", number);
        HR_TRY(const auto cpus, read_file(join_path(folder, name + "/cpulist"), 64 * kib));
        HR_TRY(node.cpus, parse_number_list(cpus));
        HR_TRY(const auto meminfo, read_file(join_path(folder, name + "/meminfo"), 64 * kib));
        const auto prefix = fmt::format("Node {} ", number);
        HR_TRY(node.total_bytes, find_meminfo_line(meminfo, prefix + "MemTotal:"));
        HR_TRY(node.free_bytes, find_meminfo_line(meminfo, prefix + "MemFree:"));
        nodes.push_back(std::move(node));
    }
    return nodes;
}

} // namespace host_runner::host

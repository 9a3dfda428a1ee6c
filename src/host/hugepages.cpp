// SPDX-License-Identifier: Apache-2.0
#include "host_runner/host/hugepages.hpp"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <optional>
#include <string_view>

#include <linux/magic.h>
#include <sys/statfs.h>

#include <fmt/format.h>

#include "host_runner/base/files.hpp"
#include "host_runner/base/units.hpp"
#include "host_runner/host/numa.hpp"
#include "parse.hpp"

namespace host_runner::host {

namespace {

constexpr std::string_view folder_prefix = "hugepages-";

/// "hugepages-2048kB" -> 2 MiB
std::optional<std::uint64_t> page_bytes_of(std::string_view folder) {
    if (!folder.starts_with(folder_prefix) || !folder.ends_with("kB"))
        return std::nullopt;
    folder.remove_prefix(folder_prefix.size());
    folder.remove_suffix(2);
    const auto kibibytes = parse_number<std::uint64_t>(folder, 10);
    if (!kibibytes || *kibibytes > gib)
        return std::nullopt;
    return *kibibytes * kib;
}

Result<std::uint64_t> read_count(const std::string& path) {
    HR_TRY(const auto text, read_file(path, 64));
    std::string_view rest = text;
    const auto count = parse_number<std::uint64_t>(next_line(rest), 10);
    if (!count)
        return fail(ErrorCode::corrupt_data, fmt::format("{} holds no number", path));
    return *count;
}

/// The pools in a folder with an entry for each size.
Result<void> add_pools(const std::string& folder, std::uint32_t node,
                       std::vector<HugepagePool>& pools) {
    const auto names = list_directory(folder);
    if (!names && names.error().code == ErrorCode::not_found)
        return {}; // a kernel, or a node, without
    if (!names)
        return tl::unexpected<Error>(names.error());
    for (const auto& name : *names) {
        const auto page_bytes = page_bytes_of(name);
        if (!page_bytes)
            continue;
        HugepagePool pool{node, *page_bytes, 0, 0};
        const auto pool_folder = join_path(folder, name);
        HR_TRY(pool.total_pages, read_count(join_path(pool_folder, "nr_hugepages")));
        HR_TRY(pool.free_pages, read_count(join_path(pool_folder, "free_hugepages")));
        pools.push_back(pool);
    }
    return {};
}

/// A word of /proc/mounts: spaces and their like are written as \ooo. Source: proc_mounts(5)
std::string unescaped(std::string_view text) {
    std::string result;
    for (std::size_t i = 0; i < text.size(); ++i) {
        unsigned value = 0;
        const auto* const digits = text.data() + i + 1;
        if (text[i] == '\\' && i + 3 < text.size() &&
            std::from_chars(digits, digits + 3, value, 8).ptr == digits + 3) {
            result += static_cast<char>(value);
            i += 3;
        } else {
            result += text[i];
        }
    }
    return result;
}

/// As mount options name a size: "pagesize=2M", "pagesize=1024M", "pagesize=1G".
bool has_page_size(std::string_view options, std::uint64_t page_bytes) {
    constexpr std::string_view key = "pagesize=";
    while (!options.empty()) {
        const auto end = std::min(options.find(','), options.size());
        const auto option = options.substr(0, end);
        options.remove_prefix(std::min(end + 1, options.size()));
        if (option.starts_with(key))
            return parse_size(option.substr(key.size())).value_or(0) == page_bytes;
    }
    return false;
}

} // namespace

Result<std::vector<HugepagePool>> read_hugepage_pools(const HostRoot& root) {
    HR_TRY(const auto nodes, read_numa_nodes(root));
    std::vector<HugepagePool> pools;
    if (nodes.empty())
        HR_CHECK(add_pools(root.path("/sys/kernel/mm/hugepages"), 0, pools));
    for (const auto& node : nodes)
        HR_CHECK(add_pools(
            root.path(fmt::format("/sys/devices/system/node/node{}/hugepages", node.node)),
            node.node, pools));
    std::sort(pools.begin(), pools.end(), [](const auto& a, const auto& b) {
        return std::pair(a.node, a.page_bytes) < std::pair(b.node, b.page_bytes);
    });
    return pools;
}

Result<long> file_system_type(const std::string& path) {
    struct statfs status {};
    if (::statfs(path.c_str(), &status) != 0)
        return fail_errno(fmt::format("Cannot look at the file system of {}", path), errno);
    return static_cast<long>(status.f_type);
}

Result<void> check_hugetlbfs(const std::string& path, const FileSystemType& type) {
    HR_TRY(const auto found, type(path));
    if (found == HUGETLBFS_MAGIC)
        return {};
    return fail(ErrorCode::unsupported,
                fmt::format("{} is no hugetlbfs (its file system is of type {:#x}): QEMU would "
                            "keep the VM's memory in a file there",
                            path, found),
                fmt::format("mount -t hugetlbfs none {}", path));
}

Result<std::string> find_hugepage_mount(std::uint64_t page_bytes, const HostRoot& root,
                                        const FileSystemType& type) {
    HR_TRY(const auto text, read_file(root.path("/proc/self/mounts"), mib));
    std::string_view rest = text;
    while (!rest.empty()) {
        auto line = next_line(rest);
        static_cast<void>(next_word(line)); // the device
        const auto path = unescaped(next_word(line));
        if (next_word(line) != "hugetlbfs" || !has_page_size(next_word(line), page_bytes))
            continue;
        HR_CHECK(check_hugetlbfs(root.path(path), type));
        return path;
    }
    return fail(ErrorCode::unsupported,
                fmt::format("No hugetlbfs with pages of {} is mounted", format_size(page_bytes)),
                fmt::format("mkdir -p /dev/hugepages && mount -t hugetlbfs -o pagesize={} none "
                            "/dev/hugepages",
                            page_bytes % gib == 0 ? fmt::format("{}G", page_bytes / gib)
                                                  : fmt::format("{}M", page_bytes / mib)));
}

} // namespace host_runner::host

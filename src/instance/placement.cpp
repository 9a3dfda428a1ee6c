// SPDX-License-Identifier: Apache-2.0
#include "host_runner/instance/placement.hpp"

#include <algorithm>
#include <array>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "host_runner/base/units.hpp"

namespace host_runner::instance {

namespace {

/// The larger first: fewer entries in every table.
constexpr std::array<std::uint64_t, 2> page_sizes{gib, 2 * mib};

const host::NumaNode* find_node(const HostNuma& host, std::uint32_t number) {
    const auto found = std::find_if(host.nodes.begin(), host.nodes.end(),
                                    [number](const auto& node) { return node.node == number; });
    return found == host.nodes.end() ? nullptr : &*found;
}

std::uint64_t free_pages(const HostNuma& host, std::uint32_t node, std::uint64_t page_bytes) {
    for (const auto& pool : host.pools)
        if (pool.node == node && pool.page_bytes == page_bytes)
            return pool.free_pages;
    return 0;
}

/// The node with the most of it; of equal ones the first.
template <typename Amount>
std::uint32_t richest(const HostNuma& host, bool needs_cpus, Amount amount) {
    const host::NumaNode* best = nullptr;
    for (const auto& node : host.nodes)
        if ((!needs_cpus || !node.cpus.empty()) &&
            (best == nullptr || amount(node) > amount(*best)))
            best = &node;
    return best == nullptr ? host.nodes.front().node : best->node;
}

/// Those of the option or of the GPUs, ascending: the order of devices is measured. Empty: any.
Result<std::vector<std::uint32_t>> wanted_nodes(const spec::VmSpec& spec, const HostNuma& host,
                                                std::vector<std::string>& warnings) {
    auto nodes = host.gpu_nodes;
    std::sort(nodes.begin(), nodes.end());
    nodes.erase(std::unique(nodes.begin(), nodes.end()), nodes.end());
    if (!spec.numa_node)
        return nodes;
    if (find_node(host, *spec.numa_node) == nullptr)
        return fail(ErrorCode::invalid_argument,
                    fmt::format("--numa-node {}: this host has no such node", *spec.numa_node),
                    fmt::format("it has {} of them; see host_runner doctor", host.nodes.size()));
    for (const auto node : nodes)
        if (node != *spec.numa_node)
            warnings.push_back(
                fmt::format("--numa-node {} is far from a GPU on node {}", *spec.numa_node, node));
    return std::vector{*spec.numa_node};
}

Result<void> require_division(const spec::VmSpec& spec, std::size_t nodes) {
    if (spec.memory_bytes % (nodes * mib) != 0)
        return fail(ErrorCode::invalid_argument,
                    fmt::format("--memory {} does not divide by the {} NUMA nodes of the VM's GPUs",
                                format_size(spec.memory_bytes), nodes),
                    "choose a multiple, or --numa-node N for one node");
    if (spec.cpus % nodes != 0)
        return fail(ErrorCode::invalid_argument,
                    fmt::format("--cpus {} does not divide by the {} NUMA nodes of the VM's GPUs",
                                spec.cpus, nodes),
                    "choose a multiple, or --numa-node N for one node");
    return {};
}

/// Pages of this size for the VM, or why not.
Result<void> place_pages(const spec::VmSpec& spec, const HostNuma& host, std::uint64_t page_bytes,
                         Placement& placement) {
    auto nodes = placement.host_nodes;
    if (nodes.empty())
        nodes = {richest(host, spec.pin_numa, [&](const host::NumaNode& node) {
            return free_pages(host, node.node, page_bytes);
        })};
    HR_CHECK(require_division(spec, nodes.size()));
    const auto share = spec.memory_bytes / nodes.size();
    if (share % page_bytes != 0)
        return fail(ErrorCode::invalid_argument,
                    fmt::format("{}{} is no multiple of a page of {}", format_size(share),
                                nodes.size() > 1 ? " on each node" : "", format_size(page_bytes)),
                    fmt::format("choose a multiple of {} for --memory",
                                format_size(page_bytes * nodes.size())));
    const auto mount = std::find_if(host.mounts.begin(), host.mounts.end(), [&](const auto& each) {
        return each.page_bytes == page_bytes;
    });
    if (mount == host.mounts.end())
        return fail(
            ErrorCode::unsupported,
            fmt::format("No hugetlbfs with pages of {} is mounted", format_size(page_bytes)),
            "host_runner doctor says how to mount one");
    for (const auto node : nodes)
        if (const auto free = free_pages(host, node, page_bytes); free < share / page_bytes)
            return fail(
                ErrorCode::resource_exhausted,
                fmt::format("NUMA node {} has {} free pages of {}, and the VM needs {}", node, free,
                            format_size(page_bytes), share / page_bytes),
                fmt::format("set more aside: echo N > /sys/devices/system/node/node{}/hugepages/"
                            "hugepages-{}kB/nr_hugepages",
                            node, page_bytes / kib));
    placement.host_nodes = nodes;
    placement.page_bytes = page_bytes;
    placement.hugepage_mount = mount->path;
    const auto cpus = spec.cpus / static_cast<std::uint32_t>(nodes.size());
    for (std::uint32_t i = 0; i < nodes.size(); ++i)
        placement.guest_nodes.push_back({nodes[i], i * cpus, (i + 1) * cpus - 1, share});
    return {};
}

Result<void> place_in_hugepages(const spec::VmSpec& spec, const HostNuma& host,
                                Placement& placement) {
    if (spec.hugepage_bytes != 0)
        return place_pages(spec, host, spec.hugepage_bytes, placement);
    std::vector<std::string> reasons;
    for (const auto page_bytes : page_sizes) {
        const auto placed = place_pages(spec, host, page_bytes, placement);
        if (placed)
            return {};
        reasons.push_back(placed.error().message);
        if (page_bytes == page_sizes.back())
            return fail(placed.error().code, fmt::format("{}", fmt::join(reasons, "; ")),
                        placed.error().hint);
    }
    return {};
}

/// Ordinary memory of some nodes only.
Result<void> place_in_ordinary_pages(const spec::VmSpec& spec, const HostNuma& host,
                                     Placement& placement) {
    auto& nodes = placement.host_nodes;
    if (nodes.empty())
        nodes = {richest(host, true, [](const host::NumaNode& node) { return node.free_bytes; })};
    std::uint64_t total = 0;
    std::uint64_t free = 0;
    for (const auto number : nodes)
        if (const auto* node = find_node(host, number); node != nullptr) {
            total += node->total_bytes;
            free += node->free_bytes;
        }
    if (spec.memory_bytes > total)
        return fail(ErrorCode::resource_exhausted,
                    fmt::format("NUMA node {} has {} of memory in all, and the VM needs {}",
                                fmt::join(nodes, " and "), format_size_rounded(total),
                                format_size(spec.memory_bytes)),
                    "give it less with --memory, or leave --pin-numa out");
    if (spec.memory_bytes > free)
        placement.warnings.push_back(fmt::format(
            "The VM may use {} of NUMA node {}, where {} are free", format_size(spec.memory_bytes),
            fmt::join(nodes, " and "), format_size_rounded(free)));
    return {};
}

Result<Pinning> pin(const spec::VmSpec& spec, const HostNuma& host, const Placement& placement) {
    Pinning pinning;
    pinning.memory_nodes = placement.host_nodes;
    for (const auto number : placement.host_nodes) {
        const auto* node = find_node(host, number);
        if (node == nullptr || node->cpus.empty())
            return fail(ErrorCode::invalid_argument,
                        fmt::format("NUMA node {} has no processors to pin the VM to", number),
                        "choose another with --numa-node N");
        pinning.others.insert(pinning.others.end(), node->cpus.begin(), node->cpus.end());
    }
    std::sort(pinning.others.begin(), pinning.others.end());
    pinning.vcpus.assign(spec.cpus, pinning.others);
    for (const auto& guest_node : placement.guest_nodes)
        for (auto cpu = guest_node.first_cpu; cpu <= guest_node.last_cpu; ++cpu)
            pinning.vcpus[cpu] = find_node(host, guest_node.host_node)->cpus;
    return pinning;
}

} // namespace

std::string describe(const Placement& placement) {
    auto text = fmt::format("Memory on NUMA node {}", fmt::join(placement.host_nodes, " and "));
    if (placement.page_bytes != 0)
        text += fmt::format(", in pages of {}", format_size(placement.page_bytes));
    if (placement.pinning)
        text += fmt::format("; the VM runs on processors {}",
                            host::format_number_list(placement.pinning->others));
    return text;
}

std::string hugepage_folder(const std::string& id) {
    return fmt::format("host-runner-{}", id);
}

Result<HostNuma> read_host_numa(const spec::VmSpec& spec, const host::HostRoot& root,
                                const host::FileSystemType& type) {
    HostNuma host;
    if (!spec.pin_numa && !spec.hugepages)
        return host;
    HR_TRY(host.nodes, host::read_numa_nodes(root));
    if (!spec.hugepages)
        return host;
    HR_TRY(host.pools, host::read_hugepage_pools(root));
    for (const auto page_bytes : page_sizes)
        if (auto path = host::find_hugepage_mount(page_bytes, root, type))
            host.mounts.push_back({page_bytes, std::move(*path)});
    return host;
}

Result<Placement> plan_placement(const spec::VmSpec& spec, const HostNuma& host) {
    Placement placement;
    if (!spec.pin_numa && !spec.hugepages)
        return placement;
    if (host.nodes.empty())
        return fail(ErrorCode::unsupported, "The kernel has no NUMA support",
                    "leave --pin-numa and --hugepage out, or use a kernel with CONFIG_NUMA");
    HR_TRY(placement.host_nodes, wanted_nodes(spec, host, placement.warnings));
    HR_CHECK(spec.hugepages ? place_in_hugepages(spec, host, placement)
                            : place_in_ordinary_pages(spec, host, placement));
    if (!spec.pin_numa)
        return placement;
    HR_TRY(placement.pinning, pin(spec, host, placement));
    if (spec.cpus > placement.pinning->others.size())
        placement.warnings.push_back(fmt::format(
            "--cpus {} is more than the {} processors of NUMA node {}", spec.cpus,
            placement.pinning->others.size(), fmt::join(placement.host_nodes, " and ")));
    return placement;
}

} // namespace host_runner::instance

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// On which NUMA nodes of the host a VM's processors and memory lie, and in what pages. Pure.
///
///     HR_TRY(const auto placement, plan_placement(spec, numa));
///     if (placement.pinning) ...

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "host_runner/base/error.hpp"
#include "host_runner/host/hugepages.hpp"
#include "host_runner/host/numa.hpp"
#include "host_runner/qemu/launch_plan.hpp"
#include "host_runner/spec/vm_spec.hpp"

namespace host_runner::instance {

/// What the placement depends on of this machine.
struct HostNuma {
    std::vector<host::NumaNode> nodes;
    std::vector<host::HugepagePool> pools;
    struct Mount {
        std::uint64_t page_bytes = 0;
        std::string path;
    };
    std::vector<Mount> mounts;            ///< Of hugetlbfs.
    std::vector<std::uint32_t> gpu_nodes; ///< Of the VM's GPUs, in their order.
};
/// Looks at what `spec` asks for, and at nothing for a VM without placement.
/// @errors corrupt_data, io_error
[[nodiscard]] Result<HostNuma>
read_host_numa(const spec::VmSpec& spec, const host::HostRoot& root = {},
               const host::FileSystemType& type = host::file_system_type);

/// Where a VM's threads run.
struct Pinning {
    std::vector<std::vector<std::uint32_t>> vcpus; ///< The host's processors of each vCPU.
    std::vector<std::uint32_t> others;             ///< Those of QEMU's other threads.
    std::vector<std::uint32_t> memory_nodes;
};

struct Placement {
    std::vector<std::uint32_t> host_nodes;   ///< Ascending; empty: anywhere.
    std::vector<qemu::NumaNode> guest_nodes; ///< Only with hugepages; one for each host node.
    std::uint64_t page_bytes = 0;            ///< Of hugepages; 0: ordinary ones.
    std::string hugepage_mount;              ///< Empty: none.
    std::optional<Pinning> pinning;
    std::vector<std::string> warnings;
};

/// For people: "Memory on NUMA node 0, in pages of 2M; the VM runs on processors 0-7".
[[nodiscard]] std::string describe(const Placement& placement);

/// The name of an instance's folder in a hugetlbfs.
[[nodiscard]] std::string hugepage_folder(const std::string& id);

/// @errors invalid_argument: a node that is not there or has no processors, vCPUs or memory that do
/// not divide by the nodes or pages; resource_exhausted: too little memory or too few free pages on
/// a node, with both numbers; unsupported: no NUMA, no hugetlbfs
[[nodiscard]] Result<Placement> plan_placement(const spec::VmSpec& spec, const HostNuma& host);

} // namespace host_runner::instance

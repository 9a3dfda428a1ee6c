// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Memory in pages of 2 MiB or 1 GiB, which the administrator sets aside, per NUMA node.
///
///     HR_TRY(const auto pools, read_hugepage_pools());
///     HR_TRY(const auto mount, find_hugepage_mount(gib));
///
/// Source: Linux Documentation/admin-guide/mm/hugetlbpage.rst

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "host_runner/base/error.hpp"
#include "host_runner/host/host_root.hpp"

namespace host_runner::host {

struct HugepagePool {
    std::uint32_t node = 0;
    std::uint64_t page_bytes = 0;
    std::uint64_t total_pages = 0;
    std::uint64_t free_pages = 0;
    bool operator==(const HugepagePool&) const = default;
};

/// All sizes of all nodes, also pools without a page; by node, then size. Of a kernel without NUMA
/// support its pools count as node 0. @errors corrupt_data, io_error
[[nodiscard]] Result<std::vector<HugepagePool>> read_hugepage_pools(const HostRoot& root = {});

/// The edge to the kernel: the f_type that statfs(2) gives for a path.
using FileSystemType = std::function<Result<long>(const std::string& path)>;
/// The real one. @errors not_found, permission_denied, io_error
[[nodiscard]] Result<long> file_system_type(const std::string& path);

/// Whether `path` lies on a hugetlbfs: where it does not, QEMU would put the VM's memory into a
/// plain file, without a word. @errors unsupported: with the remedy; as `type`
[[nodiscard]] Result<void> check_hugetlbfs(const std::string& path,
                                           const FileSystemType& type = file_system_type);

/// The folder where a hugetlbfs with pages of this size is mounted (/proc/self/mounts), checked by
/// check_hugetlbfs().
/// @errors unsupported: none is, with the command that mounts one
[[nodiscard]] Result<std::string>
find_hugepage_mount(std::uint64_t page_bytes, const HostRoot& root = {},
                    const FileSystemType& type = file_system_type);

} // namespace host_runner::host

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// What the host must have before it can give any PCI device to a VM.

#include <string>
#include <vector>

#include "host_runner/base/error.hpp"
#include "host_runner/host/host_root.hpp"

namespace host_runner::host {

/// The names of the IOMMUs that are on, e.g. "dmar0". Source: /sys/class/iommu,
/// Linux Documentation/ABI/testing/sysfs-class-iommu
/// @errors unsupported: there is none, with the remedy; io_error
[[nodiscard]] Result<std::vector<std::string>> find_iommus(const HostRoot& root = {});

/// Whether /dev/iommu (iommufd) opens for this user: QEMU needs it for the devices of a TD.
/// @errors unsupported: the kernel has none; permission_denied; io_error; with a remedy
[[nodiscard]] Result<void> check_iommufd(const HostRoot& root = {});

/// Whether the kernel has the driver vfio-pci. @errors unsupported, with the remedy
[[nodiscard]] Result<void> check_vfio_pci(const HostRoot& root = {});

} // namespace host_runner::host

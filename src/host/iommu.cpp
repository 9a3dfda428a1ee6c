// SPDX-License-Identifier: Apache-2.0
#include "host_runner/host/iommu.hpp"

#include <cerrno>

#include <fcntl.h>

#include "host_runner/base/files.hpp"
#include "host_runner/base/unique_fd.hpp"

namespace host_runner::host {

Result<std::vector<std::string>> find_iommus(const HostRoot& root) {
    auto names = list_directory(root.path("/sys/class/iommu"));
    if (names ? names->empty() : names.error().code == ErrorCode::not_found)
        return fail(ErrorCode::unsupported, "No IOMMU is on: /sys/class/iommu is empty",
                    "enable VT-d (or AMD-Vi) in the BIOS and boot with intel_iommu=on");
    return names;
}

Result<void> check_iommufd(const HostRoot& root) {
    const UniqueFd device(::open(root.path("/dev/iommu").c_str(), O_RDWR | O_CLOEXEC));
    if (device)
        return {};
    if (errno == ENOENT || errno == ENODEV || errno == ENXIO)
        return fail(ErrorCode::unsupported, "/dev/iommu does not exist: the kernel has no iommufd",
                    "load the module (modprobe iommufd), or use a kernel with CONFIG_IOMMUFD");
    return fail_errno("Cannot open /dev/iommu", errno,
                      "this user needs read and write access to it");
}

Result<void> check_vfio_pci(const HostRoot& root) {
    if (path_exists(root.path("/sys/bus/pci/drivers/vfio-pci")))
        return {};
    return fail(ErrorCode::unsupported, "The kernel's driver vfio-pci is not loaded",
                "modprobe vfio-pci");
}

} // namespace host_runner::host

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// PCI functions as sysfs shows them. Reads only.
///
///     HR_TRY(const auto device, read_pci_device(address, root));
///     if (device.driver == vfio_driver) ...
///
/// Source: Linux Documentation/ABI/testing/sysfs-bus-pci and sysfs-devices-vfio-dev.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "host_runner/base/error.hpp"
#include "host_runner/host/host_root.hpp"
#include "host_runner/spec/pci_address.hpp"

namespace host_runner::host {

/// The kernel's driver that hands a device to a VM.
inline constexpr std::string_view vfio_driver = "vfio-pci";

/// A base address register that is in use.
struct PciBar {
    unsigned index = 0; ///< 0..5
    std::uint64_t size_bytes = 0;
    bool is_memory = false; ///< False: I/O ports.
    bool is_64bit = false;
    bool is_prefetchable = false;
    bool operator==(const PciBar&) const = default;
};

struct PciDevice {
    spec::PciAddress address;
    std::uint32_t class_code =
        0; ///< 24 bits: class, subclass, interface; 0x030200 = 3D controller.
    std::uint16_t vendor = 0, device = 0;
    std::string driver;                       ///< Empty: none.
    std::string driver_override;              ///< Empty: none.
    std::optional<std::uint32_t> iommu_group; ///< nullopt: the kernel runs without an IOMMU.
    /// All of the group, itself too, sorted.
    std::vector<spec::PciAddress> group_members;
    std::optional<std::uint32_t> numa_node; ///< nullopt: not known (-1 in sysfs).
    std::vector<PciBar> bars;               ///< Ascending index; unused ones are left out.
    bool can_reset = false;                 ///< The kernel knows a way to reset this function.
    std::string vfio_cdev;                  ///< "vfio3" for /dev/vfio/devices/vfio3; empty: none.

    /// 0x0302 of class code 0x030200.
    [[nodiscard]] std::uint32_t class_and_subclass() const noexcept {
        return class_code >> 8U;
    }
};

/// "/sys/bus/pci/devices/0000:b8:00.0"
[[nodiscard]] std::string pci_device_path(const spec::PciAddress& address);

/// Everything about one function. Each file is read with a cap.
/// @errors not_found: there is no such function; corrupt_data: a file has not its form, with the
///         path; permission_denied, io_error
[[nodiscard]] Result<PciDevice> read_pci_device(const spec::PciAddress& address,
                                                const HostRoot& root = {});

/// Only the driver, for waiting. Empty: none. @errors as read_pci_device()
[[nodiscard]] Result<std::string> read_pci_driver(const spec::PciAddress& address,
                                                  const HostRoot& root = {});

/// All functions, sorted; none on a machine without PCI.
[[nodiscard]] Result<std::vector<spec::PciAddress>> list_pci_devices(const HostRoot& root = {});

/// The first six lines of a `resource` file: "start end flags" each, in hexadecimal. Flags are
/// those of Linux include/linux/ioport.h. @errors corrupt_data
[[nodiscard]] Result<std::vector<PciBar>> parse_pci_resources(std::string_view text);

/// The name of vendor:device in the text of pci.ids (format: its own head; https://pci-ids.ucw.cz);
/// empty when it is not in it.
[[nodiscard]] std::string find_in_pci_ids(std::string_view text, std::uint16_t vendor,
                                          std::uint16_t device);

} // namespace host_runner::host

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// GPUs and NVSwitches: which there are, who uses them, and whether they can be passed to a VM.
/// Reads only; device_binder.hpp takes them.
///
///     HR_TRY(const auto selection, select_gpus(addresses, root));   // all checks passed
///     HR_CHECK(binder.take(selection.addresses()));

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "host_runner/base/error.hpp"
#include "host_runner/host/host_root.hpp"
#include "host_runner/host/open_files.hpp"
#include "host_runner/host/pci.hpp"
#include "host_runner/spec/pci_address.hpp"

namespace host_runner::host {

enum class GpuKind {
    gpu,      ///< PCI class 0x03xx
    nvswitch, ///< NVIDIA's NVSwitch of the Hopper generation, 10de:22a3
};
[[nodiscard]] std::string_view to_string(GpuKind kind) noexcept;

/// A process that has a node of the device open.
struct DeviceHolder {
    ProcessHolder process;
    std::string node; ///< e.g. "/dev/vfio/devices/vfio3"
    bool operator==(const DeviceHolder&) const = default;
};

struct Gpu {
    PciDevice pci;
    GpuKind kind = GpuKind::gpu;
    std::string model; ///< Of pci.ids where that is installed, else "10de:2901".
    std::optional<DeviceHolder> holder;
};

/// GPUs of NVIDIA, AMD and Intel and NVSwitches, by address. What cannot be read is told to
/// `on_problem` and left out. NVIDIA's confidential computing mode is not among it: no file of the
/// kernel or of NVIDIA's driver shows it.
/// @errors permission_denied, io_error: /sys/bus/pci/devices
[[nodiscard]] Result<std::vector<Gpu>>
list_gpus(const HostRoot& root = {}, const std::function<void(const Error&)>& on_problem = {});

/// What one VM gets, and what must move with it.
struct GpuSelection {
    std::vector<PciDevice> gpus;       ///< For the VM, in the order in which it sees them.
    std::vector<PciDevice> nvswitches; ///< For the VM too, after the GPUs.
    /// Other functions of the same cards and IOMMU groups (audio, USB): they go to vfio-pci as
    /// well, because a group is taken as a whole, but not to the VM.
    std::vector<PciDevice> companions;

    [[nodiscard]] bool empty() const noexcept {
        return gpus.empty() && nvswitches.empty();
    }
    /// GPUs and NVSwitches, in that order.
    [[nodiscard]] std::vector<PciDevice> devices_for_vm() const;
    [[nodiscard]] std::vector<spec::PciAddress> for_vm() const;
    /// Of everything that must be bound to vfio-pci.
    [[nodiscard]] std::vector<spec::PciAddress> addresses() const;
};

/// Checks the devices that the user named: NVIDIA GPUs and NVSwitches. "In use" is: a process has
/// /dev/vfio/GROUP, /dev/vfio/devices/vfioN, /dev/dri/NAME or /dev/nvidiaN of the device open (of
/// an NVSwitch any /dev/nvidia-nvswitchN, since nothing tells them apart). Processes of other users
/// are seen by root only. Takes nothing.
/// @errors not_found: no such device; invalid_argument: not a device that -g takes;
///         already_exists: in use, with process and node; unsupported: no IOMMU, no /dev/iommu, no
///         driver vfio-pci; wrong_state: a member of the IOMMU group stays with the host;
///         permission_denied: this user can neither bind nor open it
[[nodiscard]] Result<GpuSelection> select_gpus(const std::vector<spec::PciAddress>& asked,
                                               const HostRoot& root = {});

/// All NVIDIA GPUs, and all NVSwitches of this machine (protected PCIe needs them together).
/// @errors as select_gpus(); not_found: there is no NVIDIA GPU
[[nodiscard]] Result<GpuSelection> select_all_gpus(const HostRoot& root = {});

/// Whether QEMU, as this user, will be able to open what is bound to vfio-pci now.
/// @errors unsupported: a kernel without VFIO's character devices; permission_denied
[[nodiscard]] Result<void> check_gpus_open(const GpuSelection& selection,
                                           const HostRoot& root = {});

/// Who has a node of the device open. @errors none: what cannot be read counts as not there
[[nodiscard]] std::optional<DeviceHolder> find_device_holder(const PciDevice& device,
                                                             const HostRoot& root = {});

} // namespace host_runner::host

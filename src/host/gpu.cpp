// SPDX-License-Identifier: Apache-2.0
#include "host_runner/host/gpu.hpp"

#include <algorithm>
#include <map>
#include <set>

#include <unistd.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "host_runner/base/files.hpp"
#include "host_runner/base/units.hpp"
#include "parse.hpp"

namespace host_runner::host {

namespace {

using spec::format_pci_address;
using spec::PciAddress;

// https://pci-ids.ucw.cz
constexpr std::uint16_t nvidia = 0x10de;
constexpr std::uint16_t amd = 0x1002;
constexpr std::uint16_t intel = 0x8086;
constexpr std::uint16_t hopper_nvswitch = 0x22a3;

// PCI Code and ID Assignment Specification, section 1
constexpr std::uint32_t display_class = 0x03;
constexpr std::uint32_t pci_bridge_class = 0x0604;
constexpr std::uint32_t other_bridge_class = 0x0680;

/// pci.ids has 1.4 MiB today.
constexpr std::size_t max_pci_ids_bytes = 16 * mib;
/// NVIDIA open-gpu-kernel-modules, kernel-open/nvidia/linux_nvswitch.c: one minor per switch.
constexpr unsigned max_nvswitches = 64;

constexpr auto what_is_taken =
    "-g takes NVIDIA GPUs (vendor 10de, class 0x03xx) and NVSwitches (10de:22a3), because drivers "
    "and attestation of the guests know only these; host_runner gpu list shows them";

std::optional<GpuKind> kind_of(const PciDevice& device) {
    const auto vendor = device.vendor;
    if (device.class_code >> 16U == display_class)
        return vendor == nvidia || vendor == amd || vendor == intel ? std::optional(GpuKind::gpu)
                                                                    : std::nullopt;
    if (vendor == nvidia && device.device == hopper_nvswitch &&
        device.class_and_subclass() == other_bridge_class)
        return GpuKind::nvswitch;
    return std::nullopt;
}

bool is_accepted(const PciDevice& device) {
    return device.vendor == nvidia && kind_of(device).has_value();
}

std::string_view noun(const PciDevice& device) {
    const auto kind = kind_of(device);
    return kind == GpuKind::gpu ? "GPU" : kind == GpuKind::nvswitch ? "NVSwitch" : "Device";
}

std::string label(const PciDevice& device) {
    return fmt::format("{} {}", noun(device), format_pci_address(device.address));
}

std::string ids(const PciDevice& device) {
    return fmt::format("{:04x}:{:04x}", device.vendor, device.device);
}

// --- who uses it --------------------------------------------------------------------------------

/// /dev/nvidiaN, from "Device Minor: \t N" (NVIDIA's README, chapter on the /proc interface).
std::optional<std::string> nvidia_node(const PciDevice& device, const HostRoot& root) {
    const auto text = read_file(root.path(fmt::format("/proc/driver/nvidia/gpus/{}/information",
                                                      format_pci_address(device.address))),
                                64 * kib);
    if (!text)
        return std::nullopt; // another driver
    std::string_view rest = *text;
    constexpr std::string_view head = "Device Minor:";
    while (!rest.empty()) {
        auto line = next_line(rest);
        if (!line.starts_with(head))
            continue;
        line.remove_prefix(head.size());
        if (const auto minor = parse_number<std::uint32_t>(next_word(line), 10))
            return fmt::format("/dev/nvidia{}", *minor);
    }
    return std::nullopt;
}

/// As the links in /proc/PID/fd name them.
std::vector<std::string> nodes_of(const PciDevice& device, const HostRoot& root) {
    std::vector<std::string> nodes;
    if (!device.vfio_cdev.empty())
        nodes.push_back("/dev/vfio/devices/" + device.vfio_cdev);
    if (device.iommu_group)
        nodes.push_back(fmt::format("/dev/vfio/{}", *device.iommu_group));
    if (const auto node = nvidia_node(device, root))
        nodes.push_back(*node);
    const auto drm = list_directory(root.path(pci_device_path(device.address) + "/drm"));
    for (const auto& name : drm.value_or(std::vector<std::string>()))
        nodes.push_back("/dev/dri/" + name);
    if (kind_of(device) == GpuKind::nvswitch && device.driver != vfio_driver)
        for (unsigned i = 0; i < max_nvswitches; ++i)
            nodes.push_back(fmt::format("/dev/nvidia-nvswitch{}", i));
    return nodes;
}

/// One pass over all processes for many devices.
std::map<PciAddress, DeviceHolder> find_device_holders(const std::vector<PciDevice>& devices,
                                                       const HostRoot& root) {
    std::map<PciAddress, std::vector<std::string>> nodes;
    std::set<std::string, std::less<>> all;
    for (const auto& device : devices) {
        nodes[device.address] = nodes_of(device, root);
        all.insert(nodes[device.address].begin(), nodes[device.address].end());
    }
    const auto open = find_holders(all, root);
    std::map<PciAddress, DeviceHolder> holders;
    for (const auto& [address, own] : nodes)
        for (const auto& node : own)
            if (const auto found = open.find(node); found != open.end())
                holders.try_emplace(address, DeviceHolder{found->second, node});
    return holders;
}

// --- what can be passed on ----------------------------------------------------------------------

Result<void> check_accepted(const PciDevice& device) {
    if (is_accepted(device))
        return {};
    const bool is_display = device.class_code >> 16U == display_class;
    return fail(ErrorCode::invalid_argument,
                is_display ? fmt::format("GPU {} ({}) is not NVIDIA's",
                                         format_pci_address(device.address), ids(device))
                           : fmt::format("Device {} ({}, class {:#08x}) is not a GPU",
                                         format_pci_address(device.address), ids(device),
                                         device.class_code),
                what_is_taken);
}

Result<void> check_iommu(const PciDevice& device, const HostRoot& root) {
    if (!device.iommu_group)
        return fail(ErrorCode::unsupported,
                    fmt::format("{} is in no IOMMU group: the IOMMU is off", label(device)),
                    "switch VT-d (AMD: IOMMU) on in the BIOS and start the kernel with "
                    "intel_iommu=on");
    if (!path_exists(root.path("/dev/iommu")))
        return fail(
            ErrorCode::unsupported,
            fmt::format("{} cannot be passed to a VM: /dev/iommu does not exist", label(device)),
            "modprobe iommufd; it needs Linux 6.6 or newer with CONFIG_IOMMUFD and "
            "CONFIG_VFIO_DEVICE_CDEV");
    if (!path_exists(root.path("/sys/bus/pci/drivers/vfio-pci")))
        return fail(ErrorCode::unsupported,
                    fmt::format("{} cannot be passed to a VM: the driver vfio-pci is not loaded",
                                label(device)),
                    "modprobe vfio-pci");
    return {};
}

Result<void> check_not_in_use(const PciDevice& device,
                              const std::map<PciAddress, DeviceHolder>& holders) {
    const auto found = holders.find(device.address);
    if (found == holders.end())
        return {};
    const auto& [process, node] = found->second;
    return fail(ErrorCode::already_exists,
                fmt::format("{} is in use: {} (pid {}) has {} open", label(device), process.program,
                            process.pid, node),
                "end that process first, or choose another device; host_runner gpu list shows who "
                "holds which");
}

bool is_writable(const std::string& path, const HostRoot& root) {
    return ::access(root.path(path).c_str(), R_OK | W_OK) == 0;
}

Result<void> check_opens(const PciDevice& device, const HostRoot& root) {
    if (device.vfio_cdev.empty())
        return fail(ErrorCode::unsupported,
                    fmt::format("{} has no /dev/vfio/devices/vfioN", label(device)),
                    "it needs Linux 6.6 or newer with CONFIG_VFIO_DEVICE_CDEV");
    for (const auto& path : {std::string("/dev/iommu"), "/dev/vfio/devices/" + device.vfio_cdev})
        if (!is_writable(path, root))
            return fail(ErrorCode::permission_denied,
                        fmt::format("{} may not be opened by this user: {}", label(device), path),
                        "run as root, or give this user access to it (a udev rule)");
    return {};
}

Result<void> check_rights(const PciDevice& device, const HostRoot& root) {
    if (device.driver == vfio_driver)
        return check_opens(device, root);
    if (!is_writable(pci_device_path(device.address) + "/driver_override", root))
        return fail(ErrorCode::permission_denied,
                    fmt::format("{} cannot be bound to vfio-pci by this user", label(device)),
                    "run as root, or let root bind it to vfio-pci beforehand");
    return {};
}

/// A function of the same card, which the card's owner takes as well.
bool is_companion(const PciDevice& member, const PciDevice& device) {
    constexpr std::uint32_t audio = 0x0403;
    constexpr std::uint32_t usb = 0x0c03;
    constexpr std::uint32_t serial_bus = 0x0c80;
    const auto kind = member.class_and_subclass();
    return member.vendor == device.vendor && member.address.domain == device.address.domain &&
           member.address.bus == device.address.bus &&
           member.address.device == device.address.device &&
           (kind == audio || kind == usb || kind == serial_bus);
}

tl::unexpected<Error> not_viable(const PciDevice& device, const PciDevice& member) {
    const auto message =
        fmt::format("{} cannot be taken alone: its IOMMU group {} also has {} ({}, {})",
                    label(device), device.iommu_group.value_or(0), label(member), ids(member),
                    member.driver.empty() ? "no driver" : fmt::format("driver {}", member.driver));
    return fail(ErrorCode::wrong_state, message,
                is_accepted(member)
                    ? fmt::format("take both: -g {},{}", format_pci_address(device.address),
                                  format_pci_address(member.address))
                    : "bind that one to vfio-pci too if the host can spare it, or put the card "
                      "into a slot whose group is its own");
}

/// Reads and checks the other members of the devices' groups.
class GroupCheck {
public:
    GroupCheck(const std::vector<PciDevice>& asked, const HostRoot& root)
        : asked_(asked), root_(root) {}

    Result<std::vector<PciDevice>> companions() {
        for (const auto& device : asked_)
            for (const auto& address : device.group_members)
                HR_CHECK(check_member(device, address));
        return std::move(companions_);
    }

private:
    static bool holds(const std::vector<PciDevice>& devices, const PciAddress& address) {
        return std::any_of(devices.begin(), devices.end(),
                           [&](const PciDevice& one) { return one.address == address; });
    }

    Result<void> check_member(const PciDevice& device, const PciAddress& address) {
        if (holds(asked_, address) || holds(companions_, address))
            return {};
        HR_TRY(auto member, read_pci_device(address, root_));
        if (member.class_and_subclass() == pci_bridge_class)
            return {};
        if (member.driver == vfio_driver)
            return check_not_in_use(member, find_device_holders({member}, root_));
        if (!is_companion(member, device))
            return not_viable(device, member);
        HR_CHECK(check_rights(member, root_));
        companions_.push_back(std::move(member));
        return {};
    }

    const std::vector<PciDevice>& asked_;
    const HostRoot& root_;
    std::vector<PciDevice> companions_;
};

Result<GpuSelection> select(std::vector<PciDevice> devices, const HostRoot& root) {
    for (const auto& device : devices) {
        HR_CHECK(check_accepted(device));
        HR_CHECK(check_iommu(device, root));
    }
    const auto holders = find_device_holders(devices, root);
    for (const auto& device : devices) {
        HR_CHECK(check_not_in_use(device, holders));
        HR_CHECK(check_rights(device, root));
    }
    GpuSelection selection;
    HR_TRY(selection.companions, GroupCheck(devices, root).companions());
    for (auto& device : devices)
        (kind_of(device) == GpuKind::nvswitch ? selection.nvswitches : selection.gpus)
            .push_back(std::move(device));
    return selection;
}

/// The text of pci.ids, where it is installed; else empty.
std::string read_pci_ids(const HostRoot& root) {
    for (const auto* const path : {"/usr/share/misc/pci.ids", "/usr/share/hwdata/pci.ids"})
        if (auto text = read_file(root.path(path), max_pci_ids_bytes))
            return std::move(*text);
    return {};
}

/// GPUs and NVSwitches of every vendor.
Result<std::vector<PciDevice>> read_gpus(const HostRoot& root,
                                         const std::function<void(const Error&)>& on_problem) {
    HR_TRY(const auto addresses, list_pci_devices(root));
    std::vector<PciDevice> devices;
    for (const auto& address : addresses) {
        auto device = read_pci_device(address, root);
        if (!device && on_problem)
            on_problem(device.error());
        if (device && kind_of(*device))
            devices.push_back(std::move(*device));
    }
    return devices;
}

} // namespace

std::string_view to_string(GpuKind kind) noexcept {
    return kind == GpuKind::gpu ? "gpu" : "nvswitch";
}

std::vector<PciDevice> GpuSelection::devices_for_vm() const {
    auto devices = gpus;
    devices.insert(devices.end(), nvswitches.begin(), nvswitches.end());
    return devices;
}

std::vector<PciAddress> GpuSelection::for_vm() const {
    std::vector<PciAddress> result;
    for (const auto& device : devices_for_vm())
        result.push_back(device.address);
    return result;
}

std::vector<PciAddress> GpuSelection::addresses() const {
    auto result = for_vm();
    for (const auto& device : companions)
        result.push_back(device.address);
    return result;
}

Result<void> check_gpus_open(const GpuSelection& selection, const HostRoot& root) {
    for (const auto& address : selection.for_vm()) {
        HR_TRY(const auto device, read_pci_device(address, root));
        HR_CHECK(check_opens(device, root));
    }
    return {};
}

std::optional<DeviceHolder> find_device_holder(const PciDevice& device, const HostRoot& root) {
    const auto holders = find_device_holders({device}, root);
    return holders.empty() ? std::nullopt : std::optional(holders.begin()->second);
}

Result<std::vector<Gpu>> list_gpus(const HostRoot& root,
                                   const std::function<void(const Error&)>& on_problem) {
    HR_TRY(auto devices, read_gpus(root, on_problem));
    std::vector<Gpu> gpus;
    if (devices.empty())
        return gpus;
    const auto holders = find_device_holders(devices, root);
    const auto names = read_pci_ids(root);
    for (auto& device : devices) {
        Gpu gpu;
        gpu.kind = kind_of(device).value_or(GpuKind::gpu);
        gpu.model = find_in_pci_ids(names, device.vendor, device.device);
        if (gpu.model.empty())
            gpu.model = ids(device);
        if (const auto found = holders.find(device.address); found != holders.end())
            gpu.holder = found->second;
        gpu.pci = std::move(device);
        gpus.push_back(std::move(gpu));
    }
    return gpus;
}

Result<GpuSelection> select_gpus(const std::vector<PciAddress>& asked, const HostRoot& root) {
    std::vector<PciDevice> devices;
    for (const auto& address : asked) {
        HR_TRY(auto device, read_pci_device(address, root));
        devices.push_back(std::move(device));
    }
    return select(std::move(devices), root);
}

Result<GpuSelection> select_all_gpus(const HostRoot& root) {
    std::optional<Error> problem;
    HR_TRY(auto devices, read_gpus(root, [&](const Error& error) { problem = error; }));
    // Which of "all" cannot be read is not known: fewer would be another VM.
    if (problem)
        return tl::unexpected<Error>(std::move(*problem));
    std::erase_if(devices, [](const PciDevice& device) { return !is_accepted(device); });
    const bool has_gpu = std::any_of(devices.begin(), devices.end(), [](const PciDevice& device) {
        return kind_of(device) == GpuKind::gpu;
    });
    if (!has_gpu)
        return fail(ErrorCode::not_found, "--gpus all: this machine has no NVIDIA GPU",
                    what_is_taken);
    return select(std::move(devices), root);
}

} // namespace host_runner::host

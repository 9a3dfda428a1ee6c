// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Everything the command line of one QEMU depends on. VmSpec + image + host facts -> LaunchPlan;
/// LaunchPlan + Capabilities -> argv, by a pure function.
///
///     HR_TRY(const auto argv, build_argv(plan, capabilities));
///     log::debug("{}", shell_quote(argv));
///
/// The order of devices is ABI: it sets PCI slots, hence ACPI tables, RTMR0, the names /dev/vdX and
/// the key that seals the data disk.

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "host_runner/base/error.hpp"
#include "host_runner/image/image.hpp"
#include "host_runner/qemu/capabilities.hpp"
#include "host_runner/spec/vm_spec.hpp"

namespace host_runner::qemu {

enum class Accelerator { kvm, tcg };

/// How the guest gets its files.
enum class ShareMode { none, plan9, disk };
/// How guest and runner talk.
enum class ChannelMode {
    virtio_serial, ///< Our own image: protocol::channel_ports.
    vsock,         ///< dstack images: vhost-vsock with a claimed CID.
    tcp,           ///< dstack images on hosts without vhost-vsock: no device at all.
};

struct NumaNode {
    std::uint32_t host_node = 0;
    std::uint32_t first_cpu = 0, last_cpu = 0;
    std::uint64_t memory_bytes = 0;
};

struct GpuDevice {
    spec::PciAddress address;
    std::uint32_t numa_index = 0; ///< Index into LaunchPlan::numa_nodes, when there are any.
    bool is_nvswitch = false;     ///< On pcie.0, after all GPUs.
    std::string vfio_file = {};   ///< /dev/vfio/devices/vfioN; may be empty without `handed`.
};

/// Gives access to IOMMUs; LaunchPlan::handed names it like this.
inline constexpr std::string_view iommufd_file = "/dev/iommu";

/// A file, device or listening socket that QEMU gets open. Numbers in QEMU.
struct HandedFile {
    int fd = -1;
    int read_only_fd = -1; ///< Of a disk that QEMU writes: it opens it for reading first.
};

struct LaunchPlan {
    std::string instance_id;
    std::string directory; ///< Sockets, logs and disks of the instance; absolute.
    spec::Tee tee = spec::Tee::tdx;
    Accelerator accelerator = Accelerator::kvm;
    image::Layout layout = image::Layout::c;
    image::Guest guest = image::Guest::host_runner;
    std::uint32_t cpus = 1;
    std::uint64_t memory_bytes = 0; ///< A multiple of 1 MiB.
    /// False: the guest may have more memory than the host (tee none without hugepages). Otherwise
    /// Linux refuses QEMU a block larger than memory and swap together
    /// (Documentation/mm/overcommit-accounting.rst, mode 0).
    bool reserve_memory = true;
    std::string kernel, initrd;
    std::optional<std::string> firmware; ///< nullopt: SeaBIOS.
    std::string command_line;            ///< The image's and what the user appended.
    std::optional<std::string> rootfs;   ///< nullopt: an image that is all initrd.
    std::string data_disk;               ///< qcow2
    std::string share_path;              ///< Folder (plan9) or raw image (disk).
    ShareMode share = ShareMode::disk;
    bool share_read_only = true;
    ChannelMode channel = ChannelMode::virtio_serial;
    std::uint32_t vsock_cid = 0;
    /// The number of the claimed /dev/vhost-vsock in QEMU; -1: QEMU opens the device itself, as a
    /// command line printed for a shell must.
    int vsock_fd = -1;
    spec::Network network;
    /// The number in QEMU of what carries the network's frames: a tap of the bridge, or a socket to
    /// another program that makes the user network. -1: QEMU makes the user network itself.
    int network_fd = -1;
    bool egress = false;
    /// Host ports all settled before a start: of a 0 QEMU takes a port that only its monitor shows.
    std::vector<spec::PortMapping> ports;
    std::string mac; ///< Layout C; else empty.
    /// Sorted by host node. Only together with hugepage_path; empty: plain -m.
    std::vector<NumaNode> numa_nodes;
    std::string hugepage_path; ///< A mounted hugetlbfs. Empty: none.
    std::vector<GpuDevice> gpus;
    std::optional<std::uint64_t> pci_hole64_bytes;
    bool pci_hotplug_off = false;
    std::optional<std::array<std::uint8_t, 48>> mr_config_id;
    std::optional<spec::QgsAddress> qgs;
    /// By path: what QEMU's user could not open by name. Empty: it opens everything by name and
    /// makes its sockets; else all of the instance's files and sockets and of the image's are here.
    std::map<std::string, HandedFile> handed;
    /// -sandbox and its like: hardening that the fixed layouts of dstack do not name and that is
    /// not measured. Off only in goldens that quote dstack's command line.
    bool sandbox = true;
};

/// The MAC address of the instance's n-th network card: the first six bytes of the SHA-256 of the
/// id ("ID:n" for n > 0), made a locally administered unicast address.
/// Source: Dstack-TEE/dstack@312dc605 dstack/vmm/src/app/qemu.rs
[[nodiscard]] std::string mac_address(const std::string& instance_id, unsigned index);

/// MRCONFIGID form V1: 0x01, the compose hash, 15 zero bytes.
/// Source: Dstack-TEE/dstack v0.5.2, dstack-types mr_config.rs
[[nodiscard]] std::array<std::uint8_t, 48>
mr_config_id_v1(const std::array<std::uint8_t, 32>& compose_hash);

/// The whole command line, argv[0] included. Pure: no file is looked at.
/// @errors unsupported: the plan needs what `capabilities` lacks (TDX, iommufd, vsock, 9p, JSON),
///         or a network that is not there yet; invalid_argument: fields that do not go together, a
///         path too long for a unix socket (107 bytes)
[[nodiscard]] Result<std::vector<std::string>> build_argv(const LaunchPlan& plan,
                                                          const Capabilities& capabilities);

/// As a line that a POSIX shell runs unchanged.
[[nodiscard]] std::string shell_quote(const std::vector<std::string>& argv);

} // namespace host_runner::qemu

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Everything the command line of one QEMU depends on. VmSpec + image + host facts -> LaunchPlan;
/// LaunchPlan + Capabilities -> argv, by a pure function.

#include <array>
#include <cstdint>
#include <optional>
#include <string>
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
    virtio_serial,  ///< Our own image: protocol::channel_ports.
    vsock,          ///< dstack images: vhost-vsock with a claimed CID.
    tcp,            ///< dstack images on hosts without vhost-vsock: no device at all.
};

struct NumaNode {
    std::uint32_t host_node = 0;
    std::uint32_t first_cpu = 0, last_cpu = 0;
    std::uint64_t memory_bytes = 0;
};

struct GpuDevice {
    spec::PciAddress address;
    std::uint32_t numa_index = 0;  ///< Index into LaunchPlan::numa_nodes.
    bool is_nvswitch = false;      ///< On pcie.0, after all GPUs.
};

struct LaunchPlan {
    std::string instance_id;
    std::string directory;  ///< Sockets, logs and disks of the instance; absolute.
    spec::Tee tee = spec::Tee::tdx;
    Accelerator accelerator = Accelerator::kvm;
    image::Layout layout = image::Layout::c;
    image::Guest guest = image::Guest::host_runner;
    std::uint32_t cpus = 1;
    std::uint64_t memory_bytes = 0;  ///< A multiple of 1 MiB.
    std::string kernel, initrd;
    std::optional<std::string> firmware;  ///< nullopt: SeaBIOS.
    std::string command_line;             ///< The image's and what the user appended.
    std::optional<std::string> rootfs;
    std::string data_disk;   ///< qcow2
    std::string share_path;  ///< Folder (plan9) or raw image (disk).
    ShareMode share = ShareMode::disk;
    bool share_read_only = true;
    ChannelMode channel = ChannelMode::virtio_serial;
    std::uint32_t vsock_cid = 0;
    int vsock_fd = -1;  ///< The descriptor's number in QEMU.
    spec::Network network;
    bool egress = false;
    std::vector<spec::PortMapping> ports;  ///< Host ports all settled.
    std::string mac;                       ///< Layout C; else empty.
    std::vector<NumaNode> numa_nodes;      ///< Empty: plain -m.
    std::string hugepage_path;             ///< Empty: none.
    std::vector<GpuDevice> gpus;
    std::optional<std::uint64_t> pci_hole64_bytes;
    bool pci_hotplug_off = false;
    std::optional<std::array<std::uint8_t, 48>> mr_config_id;
    std::optional<spec::QgsAddress> qgs;
    /// -sandbox and -run-with: hardening that the fixed layouts of dstack do not name and that is
    /// not measured. Off only in goldens that quote dstack's command line.
    bool sandbox = true;
};

/// The MAC address of the instance's n-th network card (dstack's rule, checked with id "demo").
[[nodiscard]] std::string mac_address(const std::string& instance_id, unsigned index);

/// MRCONFIGID form V1: 0x01, the compose hash, 15 zero bytes.
[[nodiscard]] std::array<std::uint8_t, 48>
mr_config_id_v1(const std::array<std::uint8_t, 32>& compose_hash);

/// The whole command line, argv[0] included. Pure: no file is looked at.
/// @errors unsupported: the plan needs what `capabilities` lacks (TDX, iommufd, JSON);
///         invalid_argument: a path too long for a unix socket (107 bytes)
[[nodiscard]] Result<std::vector<std::string>> build_argv(const LaunchPlan& plan,
                                                          const Capabilities& capabilities);

/// As a line that a POSIX shell runs unchanged.
[[nodiscard]] std::string shell_quote(const std::vector<std::string>& argv);

}  // namespace host_runner::qemu

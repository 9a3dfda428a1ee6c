// SPDX-License-Identifier: Apache-2.0
#include "host_runner/instance/plan.hpp"

#include <algorithm>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "host_runner/base/files.hpp"
#include "host_runner/base/units.hpp"
#include "host_runner/crypto/digest.hpp"
#include "host_runner/host/pci_hole.hpp"
#include "host_runner/instance/registry.hpp"
#include "host_runner/protocol/app_compose.hpp"

namespace host_runner::instance {

namespace {

bool is_ours(const image::Image& image) {
    return image.guest == image::Guest::host_runner;
}

/// From 0.5.6 on dstack's guests find their files on a disk labelled DSTACKSHR, take a quote
/// through QEMU and no longer need 9p (dstack v0.5.6 vmm/src/app/qemu.rs).
constexpr image::Version share_disk_version{0, 5, 6};
/// Where qgsd listens without a port in its configuration, and libvirt's own default.
constexpr std::string_view qgs_socket = "/var/run/tdx-qgs/qgs.socket";
/// The first dstack guest that checks MRCONFIGID (dstack v0.5.2 dstack-util, mr_config.rs).
constexpr image::Version mr_config_version{0, 5, 2};

Result<void> settle_firmware(const PlanInput& input, qemu::LaunchPlan& plan) {
    const bool wanted = input.spec.tee == spec::Tee::tdx || input.spec.firmware;
    if (!wanted)
        return {}; // SeaBIOS: quicker, and nothing is measured
    if (!input.image.firmware)
        return fail(ErrorCode::unsupported,
                    fmt::format("Image {} has no firmware (`bios` in its metadata.json)",
                                input.image.directory),
                    input.spec.tee == spec::Tee::tdx
                        ? "a TD needs one: use another image, or --tee none for a VM that the "
                          "host can read"
                        : "leave --firmware out");
    plan.firmware = input.image.firmware;
    return {};
}

Result<void> settle_memory(const PlanInput& input, Plan& plan) {
    const auto memory = input.spec.memory_bytes;
    if (memory == 0 || memory % mib != 0)
        return fail(ErrorCode::invalid_argument,
                    fmt::format("--memory {} is not a whole number of MiB", format_size(memory)),
                    "for example --memory 4G");
    if (input.spec.hugepages)
        return {}; // they are set aside, whatever else is free
    HR_TRY(const auto warning, host::assess_memory(memory, input.host.memory, input.spec.tee));
    if (warning)
        plan.warnings.push_back(*warning);
    // With its memory reserved QEMU would not even start where the host has less: Linux refuses an
    // obvious overcommitment (vm.overcommit_memory 0). A TD's memory is not of this kind.
    plan.launch.reserve_memory = input.spec.tee == spec::Tee::tdx || !warning;
    return {};
}

Result<void> settle_placement(const PlanInput& input, Plan& plan) {
    HR_TRY(plan.placement, plan_placement(input.spec, input.host.numa));
    auto& placement = plan.placement;
    plan.warnings.insert(plan.warnings.end(), placement.warnings.begin(), placement.warnings.end());
    if (placement.hugepage_mount.empty())
        return {};
    plan.launch.numa_nodes = placement.guest_nodes;
    // A folder of the instance's own, so that what it leaves behind is known to be its own.
    plan.launch.hugepage_path = join_path(placement.hugepage_mount, hugepage_folder(input.id));
    return {};
}

/// Of the guest's NUMA nodes the one that lies on the GPU's; the first where none does.
std::uint32_t guest_node_of(const host::PciDevice& gpu, const qemu::LaunchPlan& launch) {
    for (std::uint32_t i = 0; i < launch.numa_nodes.size(); ++i)
        if (launch.numa_nodes[i].host_node == gpu.numa_node)
            return i;
    return 0;
}

Result<void> settle_gpus(const PlanInput& input, qemu::LaunchPlan& launch) {
    const auto& selection = input.host.gpus;
    for (const auto& gpu : selection.gpus)
        launch.gpus.push_back({gpu.address, guest_node_of(gpu, launch), false});
    for (const auto& nvswitch : selection.nvswitches)
        launch.gpus.push_back({nvswitch.address, 0, true});
    auto devices = selection.gpus;
    devices.insert(devices.end(), selection.nvswitches.begin(), selection.nvswitches.end());
    HR_TRY(launch.pci_hole64_bytes, host::size_pci_hole64(devices, input.spec.memory_bytes,
                                                          input.host.physical_address_bits));
    return {};
}

Result<void> settle_channel(const PlanInput& input, Plan& plan) {
    auto& launch = plan.launch;
    if (is_ours(input.image)) {
        launch.channel = qemu::ChannelMode::virtio_serial;
        return {};
    }
    if (input.host.has_vhost_vsock) {
        launch.channel = qemu::ChannelMode::vsock;
        launch.vsock_fd = qemu_vsock_fd;
        return {};
    }
    if (launch.network.mode != spec::NetworkMode::user || !launch.egress)
        return fail(ErrorCode::unsupported,
                    "This host has no vsock for VMs (/dev/vhost-vsock), and without a network the "
                    "guest of this image cannot reach its runner in another way",
                    "load the module (modprobe vhost_vsock), or give the guest --net user "
                    "--egress on");
    launch.channel = qemu::ChannelMode::tcp;
    plan.warnings.emplace_back(
        "This host has no vsock for VMs (/dev/vhost-vsock): the guest talks to its runner over "
        "loopback TCP under an unguessable path, and cannot be asked to shut down; modprobe "
        "vhost_vsock gives the better way");
    return {};
}

void settle_share(const PlanInput& input, qemu::LaunchPlan& launch) {
    const InstancePaths paths(input.directory);
    if (is_ours(input.image) || input.image.version >= share_disk_version) {
        launch.share = qemu::ShareMode::disk;
        launch.share_path = paths.share_image();
        launch.share_read_only = true;
    } else {
        launch.share = qemu::ShareMode::plan9;
        launch.share_path = paths.app();
        launch.share_read_only = input.image.shared_read_only;
    }
}

Result<void> settle_egress(const PlanInput& input, Plan& plan) {
    HR_TRY(plan.launch.egress, wants_egress(input.spec, input.image, input.files));
    return {};
}

/// After the channel, which may lead over the host's loopback.
Result<void> settle_network(const PlanInput& input, Plan& plan) {
    auto& launch = plan.launch;
    auto network = input.spec.network;
    if (input.spec.backend.libvirt)
        network.user = spec::UserNetwork::qemu; // it takes no descriptors of ours
    HR_TRY(plan.network,
           usernet::choose_backend({network, launch.egress, !input.spec.host_services.empty(),
                                    launch.channel == qemu::ChannelMode::tcp,
                                    input.host.network_programs}));
    if (!plan.network.warning.empty())
        plan.warnings.push_back(plan.network.warning);
    if (plan.network.backend != usernet::Backend::none &&
        plan.network.backend != usernet::Backend::qemu)
        launch.network_fd = qemu_network_fd;
    return {};
}

void settle_tdx(const PlanInput& input, qemu::LaunchPlan& launch) {
    const auto& image = input.image;
    if (is_ours(image) || image.version >= mr_config_version)
        launch.mr_config_id = qemu::mr_config_id_v1(input.files.compose_hash);
    launch.qgs = input.spec.qgs;
    if (!launch.qgs && input.spec.backend.libvirt) // it knows no other kind of address
        launch.qgs = spec::QgsAddress{.unix_path = std::string(qgs_socket)};
    // Older dstack guests dial the quote service themselves.
    if (!launch.qgs && (is_ours(image) || image.version >= share_disk_version))
        launch.qgs = spec::QgsAddress{};
}

void add_warnings(const PlanInput& input, Plan& plan) {
    if (input.spec.tee == spec::Tee::none) {
        plan.warnings.emplace_back(
            "--tee none: this VM is not confidential, the host can read its memory");
        if (!is_ours(input.image))
            plan.warnings.emplace_back(
                "dstack images start only as a TD: without TDX the guest gives up and reboots");
    }
    if (input.spec.cpus > input.host.online_cpus)
        plan.warnings.push_back(fmt::format("--cpus {} is more than the {} of this host",
                                            input.spec.cpus, input.host.online_cpus));
}

std::string_view text(qemu::ShareMode mode) {
    switch (mode) {
    case qemu::ShareMode::none:
        return "none";
    case qemu::ShareMode::plan9:
        return "9p";
    case qemu::ShareMode::disk:
        return "disk";
    }
    return "?";
}

std::string_view text(qemu::ChannelMode mode) {
    switch (mode) {
    case qemu::ChannelMode::virtio_serial:
        return "virtio-serial";
    case qemu::ChannelMode::vsock:
        return "vsock";
    case qemu::ChannelMode::tcp:
        return "tcp";
    }
    return "?";
}

} // namespace

Result<bool> wants_egress(const spec::VmSpec& spec, const image::Image& image,
                          const GuestFiles& files) {
    if (spec.egress)
        return *spec.egress;
    if (!is_ours(image))
        return true;
    HR_TRY(const auto app, protocol::decode_app_compose(files.app_compose));
    return app.egress;
}

std::vector<spec::PortMapping> ports_to_forward(const spec::VmSpec& spec,
                                                const std::vector<spec::PortMapping>& from_compose,
                                                std::vector<std::string>& warnings) {
    auto ports = spec.ports;
    for (const auto& mapping : from_compose) {
        const bool named =
            std::any_of(spec.ports.begin(), spec.ports.end(), [&](const spec::PortMapping& asked) {
                return asked.protocol == mapping.protocol && asked.guest_port == mapping.guest_port;
            });
        if (named)
            continue;
        if (spec.network.mode == spec::NetworkMode::user)
            ports.push_back(mapping);
        else
            warnings.push_back(fmt::format("The compose file's port {} is not forwarded: --net {} "
                                           "has no port forwarding",
                                           spec::format_port_mapping(mapping),
                                           spec::to_string(spec.network.mode)));
    }
    return ports;
}

Result<Plan> plan_launch(const PlanInput& input) {
    const auto& spec = input.spec;
    const auto& image = input.image;
    Plan plan;
    auto& launch = plan.launch;
    launch.instance_id = input.id;
    launch.directory = input.directory;
    launch.tee = spec.tee;
    launch.accelerator = input.host.accelerator;
    launch.layout = image.layout;
    launch.guest = image.guest;
    launch.cpus = spec.cpus;
    launch.memory_bytes = spec.memory_bytes;
    launch.kernel = image.kernel;
    launch.initrd = image.initrd;
    launch.command_line = image.command_line;
    if (!spec.append.empty())
        launch.command_line +=
            launch.command_line.empty() ? spec.append : fmt::format(" {}", spec.append);
    launch.rootfs = image.rootfs;
    launch.data_disk = InstancePaths(input.directory).data_disk();
    launch.network = spec.network;
    if (image.layout == image::Layout::c)
        launch.mac = qemu::mac_address(input.id, 0);

    HR_CHECK(settle_firmware(input, launch));
    HR_CHECK(settle_memory(input, plan));
    HR_CHECK(settle_placement(input, plan));
    HR_CHECK(settle_gpus(input, launch));
    HR_CHECK(settle_egress(input, plan));
    HR_CHECK(settle_channel(input, plan));
    HR_CHECK(settle_network(input, plan));
    settle_share(input, launch);
    if (spec.tee == spec::Tee::tdx)
        settle_tdx(input, launch);
    launch.ports = ports_to_forward(spec, input.files.ports, plan.warnings);
    add_warnings(input, plan);
    return plan;
}

std::string encode_plan(const Plan& plan, const std::vector<std::string>& argv,
                        const GuestFiles& files) {
    const auto& launch = plan.launch;
    const auto or_null = [](const auto& value) {
        return value ? nlohmann::ordered_json(*value) : nlohmann::ordered_json();
    };
    nlohmann::ordered_json ports = nlohmann::ordered_json::array();
    for (const auto& mapping : launch.ports)
        ports.push_back(spec::format_port_mapping(mapping));
    nlohmann::ordered_json gpus = nlohmann::ordered_json::array();
    for (const auto& gpu : launch.gpus)
        gpus.push_back(spec::format_pci_address(gpu.address));
    const nlohmann::ordered_json json = {
        {"schema_version", 1},
        {"argv", argv},
        {"instance_id", launch.instance_id},
        {"directory", launch.directory},
        {"tee", spec::to_string(launch.tee)},
        {"accelerator", launch.accelerator == qemu::Accelerator::kvm ? "kvm" : "tcg"},
        {"layout", to_string(launch.layout)},
        {"cpus", launch.cpus},
        {"memory_bytes", launch.memory_bytes},
        {"kernel", launch.kernel},
        {"initrd", launch.initrd},
        {"firmware", or_null(launch.firmware)},
        {"kernel_command_line", launch.command_line},
        {"rootfs", or_null(launch.rootfs)},
        {"data_disk", launch.data_disk},
        {"share", text(launch.share)},
        {"channel", text(launch.channel)},
        {"network", spec::to_string(launch.network.mode)},
        {"network_backend", usernet::to_string(plan.network.backend)},
        {"egress", launch.egress},
        {"ports", std::move(ports)},
        {"gpus", std::move(gpus)},
        {"numa_nodes", plan.placement.host_nodes},
        {"hugepage_bytes", plan.placement.page_bytes == 0
                               ? nlohmann::ordered_json()
                               : nlohmann::ordered_json(plan.placement.page_bytes)},
        {"pinned", plan.placement.pinning.has_value()},
        {"pci_hole64_bytes", or_null(launch.pci_hole64_bytes)},
        {"app_compose_sha256", crypto::to_hex(files.compose_hash)},
        {"mr_config_id", launch.mr_config_id
                             ? nlohmann::ordered_json(crypto::to_hex(*launch.mr_config_id))
                             : nlohmann::ordered_json()},
        {"qgs", launch.qgs ? nlohmann::ordered_json(spec::format_qgs_address(*launch.qgs))
                           : nlohmann::ordered_json()},
        {"warnings", plan.warnings},
        {"notices", files.notices},
    };
    return json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

} // namespace host_runner::instance

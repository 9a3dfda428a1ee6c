// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstddef>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "host_runner/base/files.hpp"
#include "host_runner/base/units.hpp"
#include "host_runner/base/unix_socket.hpp"
#include "host_runner/crypto/digest.hpp"
#include "host_runner/protocol/channel.hpp"
#include "host_runner/qemu/launch_plan.hpp"
#include "host_runner/qemu/user_netdev.hpp"

namespace host_runner::qemu {

namespace {

/// Members keep the order in which they are written.
using Json = nlohmann::ordered_json;

/// libvirt's hardening (qemu_command.c, qemuBuildSandboxCommandLine).
constexpr auto sandbox_rules =
    "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";

/// QEMU's keyval and option lists end a value at a comma; a doubled one stands for itself. JSON
/// values and the plain file names of -kernel, -initrd, -bios and -cdrom have no such rule.
std::string keyval(const std::string& value) {
    std::string escaped;
    for (const char c : value) {
        escaped += c;
        if (c == ',')
            escaped += c;
    }
    return escaped;
}

Result<void> check_tdx(const LaunchPlan& plan, const Capabilities& capabilities) {
    if (plan.tee == spec::Tee::none)
        return {};
    if (plan.accelerator != Accelerator::kvm)
        return fail(ErrorCode::invalid_argument, "A TD needs KVM, the plan says TCG",
                    "use --accel kvm, or --tee none for a VM that the host can read");
    if (!plan.firmware)
        return fail(ErrorCode::invalid_argument, "A TD needs a TDX firmware, the plan has none",
                    "use an image with `bios` in its metadata.json");
    if (!capabilities.tdx_guest)
        return fail(ErrorCode::unsupported,
                    fmt::format("{} (version {}) cannot start a TD: it has no tdx-guest object",
                                capabilities.path, capabilities.version),
                    "use QEMU 10.1 or newer (--qemu PATH), or --tee none for a VM that the host "
                    "can read");
    if (plan.qgs && !capabilities.tdx_quote_socket)
        return fail(ErrorCode::unsupported,
                    fmt::format("{} (version {}) cannot pass quotes on: its tdx-guest object has "
                                "no quote-generation-socket",
                                capabilities.path, capabilities.version),
                    "use QEMU 10.1 or newer (--qemu PATH)");
    return {};
}

Result<void> check_network(const LaunchPlan& plan) {
    const bool user = plan.network.mode == spec::NetworkMode::user;
    if (plan.network.mode == spec::NetworkMode::bridge && plan.network_fd < 0)
        return fail(ErrorCode::invalid_argument,
                    fmt::format("The plan has no tap of bridge {}", plan.network.bridge));
    if (!user && !plan.ports.empty())
        return fail(ErrorCode::invalid_argument,
                    fmt::format("Port {} cannot be forwarded with --net {}",
                                spec::format_port_mapping(plan.ports.front()),
                                spec::to_string(plan.network.mode)),
                    "use --net user, or leave the ports out");
    // QEMU's own network without egress shows the guest no port of the host.
    if (plan.channel == ChannelMode::tcp && !(user && (plan.egress || plan.network_fd >= 0)))
        return fail(ErrorCode::invalid_argument,
                    "A guest without vsock reaches its runner only over --net user with egress on",
                    "load the module (modprobe vhost_vsock), or use --net user --egress on");
    return {};
}

Result<void> check_devices(const LaunchPlan& plan, const Capabilities& capabilities) {
    const auto lacks = [&](std::string_view device, std::string_view remedy) {
        return fail(ErrorCode::unsupported,
                    fmt::format("{} (version {}) has no {}", capabilities.path,
                                capabilities.version, device),
                    std::string(remedy));
    };
    if (!capabilities.json_netdev)
        return lacks("JSON syntax for -netdev", "use QEMU 7.2 or newer (--qemu PATH)");
    if (plan.channel == ChannelMode::vsock && !capabilities.vhost_vsock)
        return lacks("vhost-vsock-pci device", "use a QEMU built with vhost-vsock (--qemu PATH)");
    if (plan.share == ShareMode::plan9 && !capabilities.virtio_9p)
        return lacks("virtio-9p-pci device", "use a QEMU built with virtfs (--qemu PATH)");
    if (!plan.gpus.empty() && !capabilities.iommufd)
        return lacks("iommufd object, which GPUs need", "use QEMU 9.0 or newer (--qemu PATH)");
    return {};
}

Result<void> check_memory(const LaunchPlan& plan) {
    if (plan.memory_bytes == 0 || plan.memory_bytes % mib != 0)
        return fail(
            ErrorCode::invalid_argument,
            fmt::format("A memory of {} bytes is not a whole number of MiB", plan.memory_bytes));
    if (!plan.reserve_memory && (plan.tee == spec::Tee::tdx || !plan.numa_nodes.empty()))
        return fail(ErrorCode::invalid_argument,
                    "The memory of a TD and hugepages cannot be overcommitted, the plan says so");
    // Both or none: the nodes exist to place the pages, and pages without a place have none.
    if (plan.numa_nodes.empty() != plan.hugepage_path.empty())
        return fail(ErrorCode::invalid_argument,
                    "NUMA nodes and hugepages go together, the plan has only one of them");
    std::uint64_t sum = 0;
    for (const auto& node : plan.numa_nodes)
        sum += node.memory_bytes;
    if (!plan.numa_nodes.empty() && sum != plan.memory_bytes)
        return fail(ErrorCode::invalid_argument,
                    fmt::format("The memory of the NUMA nodes is {}, that of the VM {}",
                                format_size(sum), format_size(plan.memory_bytes)));
    for (const auto& gpu : plan.gpus)
        if (!plan.numa_nodes.empty() && !gpu.is_nvswitch &&
            gpu.numa_index >= plan.numa_nodes.size())
            return fail(ErrorCode::invalid_argument,
                        fmt::format("GPU {} is on guest NUMA node {}, of which there are {}",
                                    spec::format_pci_address(gpu.address), gpu.numa_index,
                                    plan.numa_nodes.size()));
    return {};
}

/// A path may hold any bytes, JSON only UTF-8.
Result<void> check_json_paths(const LaunchPlan& plan) {
    for (const auto& path : {plan.hugepage_path, plan.qgs ? plan.qgs->unix_path : std::string()}) {
        try {
            static_cast<void>(Json(path).dump());
        } catch (const Json::type_error&) {
            return fail(ErrorCode::invalid_argument,
                        fmt::format("The path {} is not UTF-8, QEMU takes no other here", path),
                        "use a path with plain characters");
        }
    }
    return {};
}

/// Writes the command line part by part. Every `-device` is JSON: QEMU creates keyval devices
/// before JSON ones, so that a mix would move PCI slots.
class ArgvBuilder {
public:
    ArgvBuilder(const LaunchPlan& plan, const Capabilities& capabilities)
        : plan_(plan), capabilities_(capabilities) {}

    Result<std::vector<std::string>> build() {
        HR_CHECK(check_tdx(plan_, capabilities_));
        HR_CHECK(check_network(plan_));
        HR_CHECK(check_devices(plan_, capabilities_));
        HR_CHECK(check_memory(plan_));
        HR_CHECK(check_json_paths(plan_));
        argv_ = {capabilities_.path};
        HR_CHECK(plan_.layout == image::Layout::a   ? layout_a()
                 : plan_.layout == image::Layout::b ? layout_b()
                                                    : layout_c());
        return std::move(argv_);
    }

private:
    // The three layouts, as dstack's releases of each generation write them: teepod v0.3.6, vmm
    // v0.5.5 and vmm 312dc605 of Dstack-TEE/dstack (src/app/qemu.rs).

    Result<void> layout_a() {
        processor();
        size();
        HR_CHECK(console_and_qmp());
        boot();
        globals();
        data_disk();
        if (plan_.rootfs)
            add("-cdrom", block_file(*plan_.rootfs));
        firmware();
        network();
        machine();
        HR_CHECK(channel());
        share();
        numa();
        gpus();
        add("-append", plan_.command_line);
        return {};
    }

    Result<void> layout_b() {
        processor();
        HR_CHECK(console_and_qmp());
        firmware();
        boot();
        globals();
        root_disk();
        data_disk();
        network();
        machine();
        HR_CHECK(channel());
        share();
        numa();
        gpus();
        size();
        add("-append", plan_.command_line);
        return {};
    }

    Result<void> layout_c() {
        processor();
        HR_CHECK(console_and_qmp());
        firmware();
        boot();
        globals();
        root_disk();
        data_disk();
        network();
        // dstack's guests tell by it where they run. Ours do not need it, and are not dstack.
        const auto product = plan_.guest == image::Guest::dstack ? "dstack" : "host-runner";
        add("-smbios", fmt::format("type=1,manufacturer={},product={}", product, product));
        HR_CHECK(channel());
        share();
        numa();
        machine();
        gpus();
        size();
        add("-append", plan_.command_line);
        return {};
    }

    // The parts.

    void processor() {
        const bool kvm = plan_.accelerator == Accelerator::kvm;
        add("-accel", kvm ? "kvm" : "tcg");
        add("-cpu", kvm ? "host" : "max");
    }

    void size() {
        add("-smp", std::to_string(plan_.cpus));
        add("-m", fmt::format("{}M", plan_.memory_bytes / mib));
    }

    Result<void> console_and_qmp() {
        add("-nographic");
        add("-nodefaults");
        add("-no-reboot");
        harden();
        HR_TRY(const auto console, socket("console.sock"));
        const auto serial_log = block_file(join_path(plan_.directory, "serial.log"));
        add("-chardev", fmt::format("socket,id=com0,{},server=on,wait=off,logfile={},logappend=on",
                                    console, keyval(serial_log)));
        add("-serial", "chardev:com0");
        HR_TRY(const auto qmp, socket("qmp.sock"));
        if (plan_.handed.empty()) {
            add("-qmp", fmt::format("unix:{},server=on,wait=off", qmp.substr(qmp.find('=') + 1)));
        } else { // -qmp takes no descriptor
            add("-chardev", fmt::format("socket,id=qmp,{},server=on,wait=off", qmp));
            add("-mon", "chardev=qmp,mode=control");
        }
        return {};
    }

    void harden() {
        if (!plan_.sandbox)
            return;
        add("-no-user-config");
        add("-sandbox", sandbox_rules);
        if (capabilities_.run_with_exit_with_parent)
            add("-run-with", "exit-with-parent=on");
    }

    void firmware() {
        if (plan_.firmware)
            add("-bios", plain_file(*plan_.firmware));
    }

    void boot() {
        add("-kernel", plain_file(plan_.kernel));
        add("-initrd", plain_file(plan_.initrd));
    }

    void globals() {
        if (plan_.pci_hotplug_off)
            add("-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off");
        if (plan_.pci_hole64_bytes)
            add("-global",
                fmt::format("q35-pcihost.pci-hole64-size={:#x}", *plan_.pci_hole64_bytes));
    }

    void root_disk() {
        if (plan_.rootfs)
            disk(*plan_.rootfs, "raw,readonly=on");
    }

    void data_disk() {
        disk(plan_.data_disk, "qcow2");
    }

    void network() {
        if (plan_.network.mode == spec::NetworkMode::none)
            return;
        if (plan_.network_fd < 0)
            add("-netdev", user_netdev(plan_));
        else
            add_json("-netdev", network_of_descriptor());
        Json card = {{"driver", "virtio-net-pci"}, {"netdev", "net0"}};
        if (!plan_.mac.empty())
            card["mac"] = plan_.mac;
        add_json("-device", card);
    }

    /// Of a stream of frames each read and write may carry many; datagrams would be one each.
    [[nodiscard]] Json network_of_descriptor() const {
        const auto number = std::to_string(plan_.network_fd);
        if (plan_.network.mode == spec::NetworkMode::bridge)
            return {{"type", "tap"}, {"id", "net0"}, {"fd", number}};
        return {{"type", "stream"},
                {"id", "net0"},
                {"server", false},
                {"addr", {{"type", "fd"}, {"str", number}}}};
    }

    void machine() {
        const bool tdx = plan_.tee == spec::Tee::tdx;
        if (!plan_.reserve_memory)
            add_json("-object", Json{{"qom-type", "memory-backend-ram"},
                                     {"id", "ram0"},
                                     {"size", plan_.memory_bytes},
                                     {"reserve", false}});
        add("-machine", fmt::format("q35,kernel-irqchip=split{},hpet=off{}",
                                    tdx ? ",confidential-guest-support=tdx" : "",
                                    plan_.reserve_memory ? "" : ",memory-backend=ram0"));
        if (!tdx)
            return;
        Json guest = {{"qom-type", "tdx-guest"}, {"id", "tdx"}};
        if (plan_.mr_config_id)
            guest["mrconfigid"] = crypto::to_base64(*plan_.mr_config_id);
        if (plan_.qgs)
            guest["quote-generation-socket"] = quote_socket(*plan_.qgs);
        add_json("-object", guest);
    }

    static Json quote_socket(const spec::QgsAddress& qgs) {
        if (!qgs.unix_path.empty())
            return {{"type", "unix"}, {"path", qgs.unix_path}};
        return {{"type", "vsock"},
                {"cid", std::to_string(qgs.cid)},
                {"port", std::to_string(qgs.port)}};
    }

    Result<void> channel() {
        switch (plan_.channel) {
        case ChannelMode::tcp:
            return {};
        case ChannelMode::vsock:
            vsock();
            return {};
        case ChannelMode::virtio_serial:
            break;
        }
        add_json("-device", Json{{"driver", "virtio-serial-pci"}, {"id", "channel"}});
        for (const auto& port : protocol::channel_ports) {
            const auto id = fmt::format("ch{}", port.number);
            HR_TRY(const auto where, socket(id + ".sock"));
            add("-chardev", fmt::format("socket,id={},{},server=on,wait=off", id, where));
            add_json("-device", Json{{"driver", "virtserialport"},
                                     {"bus", "channel.0"},
                                     {"nr", port.number},
                                     {"chardev", id},
                                     {"name", port.guest_name}});
        }
        return {};
    }

    void vsock() {
        Json device = {{"driver", "vhost-vsock-pci"}, {"guest-cid", plan_.vsock_cid}};
        if (plan_.vsock_fd >= 0)
            device["vhostfd"] = std::to_string(plan_.vsock_fd);
        add_json("-device", device);
    }

    void share() {
        switch (plan_.share) {
        case ShareMode::none:
            return;
        case ShareMode::disk:
            disk(plan_.share_path, plan_.share_read_only ? "raw,readonly=on" : "raw");
            return;
        case ShareMode::plan9:
            add("-fsdev", fmt::format("local,id=virtfs0,path={},security_model=mapped{}",
                                      keyval(plain_file(plan_.share_path)),
                                      plan_.share_read_only ? ",readonly=on" : ""));
            add_json("-device", Json{{"driver", "virtio-9p-pci"},
                                     {"fsdev", "virtfs0"},
                                     {"mount_tag", "host-shared"}});
            return;
        }
    }

    /// Behind all devices that name no bus: QEMU would put them on the expander bridge's.
    void numa() {
        // Bus numbers of the expander bridges: each leaves room for its root ports.
        std::size_t bus_number = 5;
        for (std::size_t i = 0; i < plan_.numa_nodes.size(); ++i) {
            const auto& node = plan_.numa_nodes[i];
            add("-numa", fmt::format("node,nodeid={},cpus={}-{},memdev=mem{}", i, node.first_cpu,
                                     node.last_cpu, i));
            add_json("-object", Json{{"qom-type", "memory-backend-file"},
                                     {"id", fmt::format("mem{}", i)},
                                     {"size", node.memory_bytes},
                                     {"mem-path", plan_.hugepage_path},
                                     {"share", true},
                                     {"prealloc", true},
                                     {"host-nodes", Json::array({node.host_node})},
                                     {"policy", "bind"}});
            // dstack writes the decimal number 10 + i where QEMU reads hexadecimal: slots 16, 17
            // and on. The slot is measured, so it stays.
            add_json("-device", Json{{"driver", "pxb-pcie"},
                                     {"id", fmt::format("pcie.node{}", node.host_node)},
                                     {"bus", "pcie.0"},
                                     {"addr", fmt::format("0x{}", 10 + i)},
                                     {"numa_node", i},
                                     {"bus_nr", bus_number}});
            bus_number += 1 + static_cast<std::size_t>(std::count_if(
                                  plan_.gpus.begin(), plan_.gpus.end(), [&](const GpuDevice& gpu) {
                                      return !gpu.is_nvswitch && gpu.numa_index == i;
                                  }));
        }
    }

    void gpus() {
        if (plan_.gpus.empty())
            return;
        // One object for all: with one each, or none, a TD cannot map its memory for the second.
        Json iommufd = {{"qom-type", "iommufd"}, {"id", "iommufd0"}};
        if (const auto* handed = find_handed(std::string(iommufd_file)))
            iommufd["fd"] = std::to_string(handed->fd);
        add_json("-object", iommufd);
        for (const auto& gpu : plan_.gpus)
            if (!gpu.is_nvswitch)
                vfio(gpu,
                     plan_.numa_nodes.empty()
                         ? "pcie.0"
                         : fmt::format("pcie.node{}", plan_.numa_nodes[gpu.numa_index].host_node));
        for (const auto& gpu : plan_.gpus)
            if (gpu.is_nvswitch)
                vfio(gpu, "pcie.0");
    }

    /// Each device has a root port of its own: the guest never sees a second one on the same port.
    void vfio(const GpuDevice& gpu, const std::string& bus) {
        const auto port = fmt::format("pci.{}", ++root_ports_);
        add_json("-device", Json{{"driver", "pcie-root-port"},
                                 {"id", port},
                                 {"bus", bus},
                                 {"chassis", root_ports_}});
        Json device = {{"driver", "vfio-pci"}};
        if (const auto* handed = find_handed(gpu.vfio_file))
            device["fd"] = std::to_string(handed->fd);
        else
            device["host"] = spec::format_pci_address(gpu.address);
        device["bus"] = port;
        device["iommufd"] = "iommufd0";
        add_json("-device", device);
    }

    // The words.

    void disk(const std::string& path, std::string_view format) {
        const auto id = fmt::format("hd{}", disks_++);
        const auto file = block_file(path);
        add("-drive", fmt::format("file={},if=none,id={},format={}", keyval(file), id, format));
        add_json("-device", Json{{"driver", "virtio-blk-pci"}, {"drive", id}});
    }

    /// "path=..." or "fd=..." of a listening socket.
    [[nodiscard]] Result<std::string> socket(const std::string& name) const {
        const auto path = join_path(plan_.directory, name);
        if (const auto* handed = find_handed(path))
            return fmt::format("fd={}", handed->fd);
        if (path.size() > max_socket_path)
            return fail(ErrorCode::invalid_argument,
                        fmt::format("The socket path {} has {} bytes, a unix socket takes at most "
                                    "{}",
                                    path, path.size(), max_socket_path),
                        "set HOST_RUNNER_HOME to a folder with a shorter path");
        return "path=" + keyval(path);
    }

    [[nodiscard]] const HandedFile* find_handed(const std::string& path) const {
        const auto found = plan_.handed.find(path);
        return found == plan_.handed.end() ? nullptr : &found->second;
    }

    /// A name for what opens it with QEMU's own functions: disks and logs. A handed one becomes a
    /// set of descriptors, from which QEMU takes the one that is open as it needs it.
    std::string block_file(const std::string& path) {
        const auto* handed = find_handed(path);
        if (handed == nullptr)
            return path;
        for (const int fd : {handed->fd, handed->read_only_fd})
            if (fd >= 0)
                add("-add-fd", fmt::format("fd={},set={}", fd, handed->fd));
        return fmt::format("/dev/fdset/{}", handed->fd);
    }

    /// A name for what opens it with open(2). The kernel then asks for rights on a handed file
    /// itself, but not for a way to it.
    [[nodiscard]] std::string plain_file(const std::string& path) const {
        const auto* handed = find_handed(path);
        return handed == nullptr ? path : fmt::format("/proc/self/fd/{}", handed->fd);
    }

    void add(std::string word) {
        argv_.push_back(std::move(word));
    }
    void add(std::string option, std::string value) {
        argv_.push_back(std::move(option));
        argv_.push_back(std::move(value));
    }
    void add_json(std::string option, const Json& value) {
        add(std::move(option), value.dump()); // cannot throw: check_json_paths()
    }

    const LaunchPlan& plan_;
    const Capabilities& capabilities_;
    std::vector<std::string> argv_;
    unsigned disks_ = 0;
    unsigned root_ports_ = 0;
};

} // namespace

std::string mac_address(const std::string& instance_id, unsigned index) {
    const auto hash =
        crypto::sha256(index == 0 ? instance_id : fmt::format("{}:{}", instance_id, index));
    return fmt::format("{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}",
                       (static_cast<unsigned>(hash[0]) & 0xfeU) | 2U, hash[1], hash[2], hash[3],
                       hash[4], hash[5]);
}

std::array<std::uint8_t, 48> mr_config_id_v1(const std::array<std::uint8_t, 32>& compose_hash) {
    std::array<std::uint8_t, 48> id{};
    id[0] = 1;
    std::copy(compose_hash.begin(), compose_hash.end(), id.begin() + 1);
    return id;
}

std::string user_netdev(const LaunchPlan& plan) {
    Json netdev = {{"type", "user"},
                   {"id", "net0"},
                   {"net", "10.0.2.0/24"},
                   {"dhcpstart", "10.0.2.10"},
                   {"restrict", !plan.egress}};
    for (const auto& port : plan.ports)
        netdev["hostfwd"].push_back(
            {{"str", fmt::format("{}:{}:{}-:{}", spec::to_string(port.protocol), port.host_address,
                                 port.host_port, port.guest_port)}});
    return netdev.dump();
}

Result<std::vector<std::string>> build_argv(const LaunchPlan& plan,
                                            const Capabilities& capabilities) {
    return ArgvBuilder(plan, capabilities).build();
}

} // namespace host_runner::qemu

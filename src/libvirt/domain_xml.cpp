// SPDX-License-Identifier: Apache-2.0
#include "host_runner/libvirt/domain_xml.hpp"

#include <algorithm>
#include <map>
#include <sstream>
#include <string_view>

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <pugixml.hpp>

#include "host_runner/base/files.hpp"
#include "host_runner/base/units.hpp"
#include "host_runner/crypto/digest.hpp"
#include "host_runner/protocol/channel.hpp"
#include "host_runner/qemu/user_netdev.hpp"

namespace host_runner::libvirt {

namespace {

using Json = nlohmann::ordered_json;
using pugi::xml_node;

/// Of the elements that libvirt hands to QEMU unread (libvirt docs/drvqemu).
constexpr auto commandline_namespace = "http://libvirt.org/schemas/domain/qemu/1.0";
/// A letter for each of the three disks at most: root, data, share.
constexpr std::string_view disk_letters = "abc";

/// XML 1.0 has no way at all to write most control characters (section 2.2, Char).
bool fits_xml(std::string_view text) {
    const auto is_plain = [](char c) {
        return static_cast<unsigned char>(c) >= 0x20 || c == '\t' || c == '\n';
    };
    if (!std::all_of(text.begin(), text.end(), is_plain))
        return false;
    try {
        static_cast<void>(Json(text).dump()); // not UTF-8
        return true;
    } catch (const Json::type_error&) {
        return false;
    }
}

Result<void> check_texts(const qemu::LaunchPlan& plan, const DomainFacts& facts) {
    for (const auto& text :
         {plan.directory, plan.kernel, plan.initrd, plan.firmware.value_or(""), plan.command_line,
          plan.rootfs.value_or(""), plan.data_disk, plan.share_path, plan.network.bridge,
          plan.qgs ? plan.qgs->unix_path : std::string(), facts.emulator})
        if (!fits_xml(text))
            return fail(ErrorCode::invalid_argument,
                        fmt::format("'{}' cannot stand in a libvirt domain: it holds a control "
                                    "character or is not UTF-8",
                                    text),
                        "use plain characters, or leave --backend out");
    return {};
}

/// @param version 0: not known, taken for the newest
Result<void> require_version(std::string_view what, Version needed, Version version) {
    if (version == 0 || version >= needed)
        return {};
    return fail(ErrorCode::unsupported,
                fmt::format("{} needs libvirt {} or newer, this one is {}", what,
                            format_version(needed), format_version(version)),
                "use a newer libvirt, or leave --backend out: without libvirt only QEMU's version "
                "counts");
}

Result<void> check_tdx(const qemu::LaunchPlan& plan, const DomainFacts& facts) {
    if (plan.tee != spec::Tee::tdx)
        return {};
    HR_CHECK(check_version(facts.version, plan.tee));
    if (!plan.gpus.empty())
        HR_CHECK(require_version("A TD with a GPU", iommufd_version, facts.version));
    if (plan.qgs && plan.qgs->unix_path.empty())
        return fail(ErrorCode::unsupported,
                    fmt::format("libvirt cannot have QEMU reach the quote generation service at "
                                "{}: it knows unix sockets only",
                                spec::format_qgs_address(*plan.qgs)),
                    "give qgsd a socket and use --qgs unix:/var/run/tdx-qgs/qgs.socket");
    return {};
}

void set(xml_node node, const char* name, const std::string& value) {
    node.append_attribute(name).set_value(value.c_str());
}

template <class Number>
requires std::is_integral_v<Number>
void set(xml_node node, const char* name, Number value) {
    set(node, name, std::to_string(value));
}

xml_node add_text(xml_node parent, const char* name, const std::string& text) {
    auto node = parent.append_child(name);
    node.text().set(text.c_str());
    return node;
}

xml_node add_kib(xml_node parent, const char* name, std::uint64_t bytes) {
    auto node = add_text(parent, name, std::to_string(bytes / kib));
    set(node, "unit", "KiB");
    return node;
}

/// "0-3,8"
std::string set_of(const std::vector<std::uint32_t>& numbers) {
    std::string text;
    for (std::size_t i = 0; i < numbers.size();) {
        std::size_t last = i;
        while (last + 1 < numbers.size() && numbers[last + 1] == numbers[last] + 1)
            ++last;
        text += text.empty() ? "" : ",";
        text += last == i ? std::to_string(numbers[i])
                          : fmt::format("{}-{}", numbers[i], numbers[last]);
        i = last + 1;
    }
    return text;
}

class DomainBuilder {
public:
    DomainBuilder(const qemu::LaunchPlan& plan, const DomainFacts& facts)
        : plan_(plan), facts_(facts) {}

    std::string build() {
        domain_ = document_.append_child("domain");
        set(domain_, "type", plan_.accelerator == qemu::Accelerator::kvm ? "kvm" : "qemu");
        add_text(domain_, "name", domain_name(plan_.instance_id));
        add_text(domain_, "uuid", domain_uuid(plan_.instance_id));
        memory();
        add_text(domain_, "vcpu", std::to_string(plan_.cpus));
        set(domain_.child("vcpu"), "placement", "static");
        tuning();
        sysinfo();
        boot();
        features();
        processor();
        clock_and_ends();
        assign_slots();
        devices_ = domain_.append_child("devices");
        add_text(devices_, "emulator", facts_.emulator);
        disks();
        controllers();
        share_folder();
        network();
        console();
        channel();
        host_devices();
        set(devices_.append_child("memballoon"), "model", "none"); // else libvirt adds one
        vsock();
        launch_security();
        security_labels();
        command_line();
        std::ostringstream text;
        document_.save(text, "  ", pugi::format_default | pugi::format_no_declaration);
        return text.str();
    }

private:
    [[nodiscard]] bool tdx() const {
        return plan_.tee == spec::Tee::tdx;
    }
    [[nodiscard]] bool has_hugepages() const {
        return !plan_.numa_nodes.empty();
    }
    [[nodiscard]] bool is_user_network() const {
        return plan_.network.mode == spec::NetworkMode::user;
    }

    // --- what the machine is -------------------------------------------------------------------

    /// plan.reserve_memory has no word in XML, nor can an argument of QEMU change the memory that
    /// libvirt describes: such a VM starts where Linux lets it.
    void memory() {
        add_kib(domain_, "memory", plan_.memory_bytes);
        add_kib(domain_, "currentMemory", plan_.memory_bytes);
        if (!has_hugepages())
            return;
        auto backing = domain_.append_child("memoryBacking");
        auto page = backing.append_child("hugepages").append_child("page");
        set(page, "size", facts_.hugepage_bytes / kib);
        set(page, "unit", "KiB");
        set(backing.append_child("access"), "mode", "shared");
        set(backing.append_child("allocation"), "mode", "immediate");
    }

    void tuning() {
        if (facts_.pinning) {
            auto cputune = domain_.append_child("cputune");
            for (std::size_t i = 0; i < facts_.pinning->vcpus.size(); ++i) {
                auto pin = cputune.append_child("vcpupin");
                set(pin, "vcpu", i);
                set(pin, "cpuset", set_of(facts_.pinning->vcpus[i]));
            }
            set(cputune.append_child("emulatorpin"), "cpuset", set_of(facts_.pinning->others));
        }
        std::vector<std::uint32_t> nodes;
        for (const auto& node : plan_.numa_nodes)
            nodes.push_back(node.host_node);
        if (nodes.empty() && facts_.pinning)
            nodes = facts_.pinning->memory_nodes;
        if (nodes.empty())
            return;
        auto numatune = domain_.append_child("numatune");
        auto all = numatune.append_child("memory");
        set(all, "mode", "strict");
        set(all, "nodeset", set_of(nodes));
        for (std::size_t i = 0; i < plan_.numa_nodes.size(); ++i) {
            auto one = numatune.append_child("memnode");
            set(one, "cellid", i);
            set(one, "mode", "strict");
            set(one, "nodeset", std::to_string(plan_.numa_nodes[i].host_node));
        }
    }

    void sysinfo() {
        if (plan_.layout != image::Layout::c)
            return;
        const auto* const product = plan_.guest == image::Guest::dstack ? "dstack" : "host-runner";
        auto info = domain_.append_child("sysinfo");
        set(info, "type", "smbios");
        auto system = info.append_child("system");
        for (const auto* const name : {"manufacturer", "product"})
            set(add_text(system, "entry", product), "name", name);
    }

    void boot() {
        auto os = domain_.append_child("os");
        auto type = add_text(os, "type", "hvm");
        set(type, "arch", "x86_64");
        set(type, "machine", "q35");
        if (plan_.firmware)
            set(add_text(os, "loader", *plan_.firmware), "type", "rom"); // -bios
        add_text(os, "kernel", plan_.kernel);
        add_text(os, "initrd", plan_.initrd);
        add_text(os, "cmdline", plan_.command_line);
        if (plan_.layout == image::Layout::c)
            set(os.append_child("smbios"), "mode", "sysinfo");
    }

    void features() {
        auto features = domain_.append_child("features");
        features.append_child("acpi");
        features.append_child("apic");
        set(features.append_child("ioapic"), "driver", "qemu"); // kernel-irqchip=split
    }

    void processor() {
        auto cpu = domain_.append_child("cpu");
        const bool kvm = plan_.accelerator == qemu::Accelerator::kvm;
        set(cpu, "mode", kvm ? "host-passthrough" : "maximum");
        // What QEMU makes of a plain -smp; libvirt would give each processor a socket.
        auto topology = cpu.append_child("topology");
        set(topology, "sockets", 1);
        set(topology, "dies", 1);
        set(topology, "cores", plan_.cpus);
        set(topology, "threads", 1);
        if (!has_hugepages())
            return;
        auto numa = cpu.append_child("numa");
        for (std::size_t i = 0; i < plan_.numa_nodes.size(); ++i) {
            const auto& node = plan_.numa_nodes[i];
            auto cell = numa.append_child("cell");
            set(cell, "id", i);
            set(cell, "cpus", fmt::format("{}-{}", node.first_cpu, node.last_cpu));
            set(cell, "memory", node.memory_bytes / kib);
            set(cell, "unit", "KiB");
            set(cell, "memAccess", "shared");
        }
    }

    void clock_and_ends() {
        auto clock = domain_.append_child("clock");
        set(clock, "offset", "utc");
        auto timer = clock.append_child("timer");
        set(timer, "name", "hpet");
        set(timer, "present", "no");
        // Each end is ours to explain and to follow by --restart.
        for (const auto* const end : {"on_poweroff", "on_reboot", "on_crash"})
            add_text(domain_, end, "destroy");
        // libvirt would switch both off, and so change the ACPI tables.
        auto pm = domain_.append_child("pm");
        for (const auto* const state : {"suspend-to-mem", "suspend-to-disk"})
            set(pm.append_child(state), "enabled", "yes");
    }

    // --- where devices lie ---------------------------------------------------------------------

    enum class Device { root_disk, data_disk, network, channel, share };

    /// QEMU gives pcie.0's slots in the order of its arguments; build_argv() says why that order is
    /// what it is. Slots are hexadecimal there and here.
    void assign_slots() {
        std::vector<Device> order;
        if (plan_.rootfs && plan_.layout != image::Layout::a) // there on the AHCI
            order.push_back(Device::root_disk);
        order.push_back(Device::data_disk);
        if (plan_.network.mode != spec::NetworkMode::none)
            order.push_back(Device::network);
        if (plan_.channel != qemu::ChannelMode::tcp)
            order.push_back(Device::channel);
        if (plan_.share != qemu::ShareMode::none)
            order.push_back(Device::share);
        for (const auto device : order)
            slots_[device] = next_slot_++;
    }

    static void place(xml_node device, std::size_t bus, unsigned slot) {
        auto address = device.append_child("address");
        set(address, "type", "pci");
        set(address, "domain", "0x0000");
        set(address, "bus", fmt::format("0x{:02x}", bus));
        set(address, "slot", fmt::format("0x{:02x}", slot));
        set(address, "function", "0x0");
    }

    void place(xml_node device, Device kind) const {
        place(device, 0, slots_.at(kind));
    }

    // --- disks ---------------------------------------------------------------------------------

    void disks() {
        if (plan_.rootfs && plan_.layout == image::Layout::a)
            cdrom(*plan_.rootfs);
        else if (plan_.rootfs)
            place(disk(*plan_.rootfs, "raw", true), Device::root_disk);
        place(disk(plan_.data_disk, "qcow2", false), Device::data_disk);
        if (plan_.share == qemu::ShareMode::disk)
            place(disk(plan_.share_path, "raw", plan_.share_read_only), Device::share);
    }

    xml_node disk(const std::string& path, const char* format, bool read_only) {
        auto node = devices_.append_child("disk");
        set(node, "type", "file");
        set(node, "device", "disk");
        auto driver = node.append_child("driver");
        set(driver, "name", "qemu");
        set(driver, "type", format);
        set(node.append_child("source"), "file", path);
        auto target = node.append_child("target");
        set(target, "dev", fmt::format("vd{}", disk_letters.at(disk_count_++)));
        set(target, "bus", "virtio");
        if (read_only)
            node.append_child("readonly");
        return node;
    }

    void cdrom(const std::string& path) {
        auto node = devices_.append_child("disk");
        set(node, "type", "file");
        set(node, "device", "cdrom");
        auto driver = node.append_child("driver");
        set(driver, "name", "qemu");
        set(driver, "type", "raw");
        set(node.append_child("source"), "file", path);
        auto target = node.append_child("target");
        set(target, "dev", "sdc"); // where -cdrom puts it: the third port of the AHCI
        set(target, "bus", "sata");
        node.append_child("readonly");
        auto address = node.append_child("address");
        set(address, "type", "drive");
        set(address, "controller", 0);
        set(address, "bus", 0);
        set(address, "target", 0);
        set(address, "unit", 2);
    }

    void share_folder() {
        if (plan_.share != qemu::ShareMode::plan9)
            return;
        auto folder = devices_.append_child("filesystem");
        set(folder, "type", "mount");
        set(folder, "accessmode", "mapped");
        set(folder.append_child("source"), "dir", plan_.share_path);
        set(folder.append_child("target"), "dir", "host-shared");
        if (plan_.share_read_only)
            folder.append_child("readonly");
        place(folder, Device::share);
    }

    // --- controllers and host devices ----------------------------------------------------------

    xml_node pci_controller(const char* model) {
        auto node = devices_.append_child("controller");
        set(node, "type", "pci");
        set(node, "index", next_bus_++);
        set(node, "model", model);
        return node;
    }

    void controllers() {
        auto root = pci_controller("pcie-root");
        if (plan_.pci_hole64_bytes)
            add_kib(root, "pcihole64", *plan_.pci_hole64_bytes);
        expander_buses();
        root_ports();
        auto usb = devices_.append_child("controller"); // else libvirt adds one
        set(usb, "type", "usb");
        set(usb, "index", 0);
        set(usb, "model", "none");
        if (plan_.channel != qemu::ChannelMode::virtio_serial)
            return;
        auto serial = devices_.append_child("controller");
        set(serial, "type", "virtio-serial");
        set(serial, "index", 0);
        place(serial, Device::channel);
    }

    /// build_argv() says where slots and bus numbers come from.
    void expander_buses() {
        std::size_t bus_number = 5;
        for (std::size_t i = 0; i < plan_.numa_nodes.size(); ++i) {
            expander_of_[i] = next_bus_;
            auto node = pci_controller("pcie-expander-bus");
            auto target = node.append_child("target");
            set(target, "busNr", bus_number);
            add_text(target, "node", std::to_string(i));
            place(node, 0, static_cast<unsigned>(0x10 + i));
            bus_number += 1 + static_cast<std::size_t>(std::count_if(
                                  plan_.gpus.begin(), plan_.gpus.end(), [&](const auto& gpu) {
                                      return !gpu.is_nvswitch && gpu.numa_index == i;
                                  }));
        }
    }

    void root_ports() {
        for (const bool is_nvswitch : {false, true})
            for (const auto& gpu : plan_.gpus)
                if (gpu.is_nvswitch == is_nvswitch)
                    root_port(gpu);
    }

    void root_port(const qemu::GpuDevice& gpu) {
        gpus_.emplace_back(next_bus_, gpu.address);
        auto node = pci_controller("pcie-root-port");
        auto target = node.append_child("target");
        set(target, "chassis", gpus_.size());
        set(target, "port", "0x0");
        if (gpu.is_nvswitch || !has_hugepages())
            return place(node, 0, next_slot_++);
        place(node, expander_of_.at(gpu.numa_index), slots_on_expander_[gpu.numa_index]++);
    }

    void host_devices() {
        const bool has_iommufd = facts_.version == 0 || facts_.version >= iommufd_version;
        for (const auto& [bus, address] : gpus_) {
            auto node = devices_.append_child("hostdev");
            set(node, "mode", "subsystem");
            set(node, "type", "pci");
            set(node, "managed", "yes"); // libvirt detaches, resets and reattaches it
            auto driver = node.append_child("driver");
            set(driver, "name", "vfio");
            if (has_iommufd)
                set(driver, "iommufd", "yes");
            auto source = node.append_child("source").append_child("address");
            set(source, "domain", fmt::format("0x{:04x}", address.domain));
            set(source, "bus", fmt::format("0x{:02x}", address.bus));
            set(source, "slot", fmt::format("0x{:02x}", address.device));
            set(source, "function", fmt::format("0x{:x}", address.function));
            place(node, bus, 0);
        }
    }

    // --- talking -------------------------------------------------------------------------------

    void network() {
        if (plan_.network.mode != spec::NetworkMode::bridge)
            return; // of a user network: command_line()
        auto node = devices_.append_child("interface");
        set(node, "type", "bridge");
        if (!plan_.mac.empty())
            set(node.append_child("mac"), "address", plan_.mac);
        set(node.append_child("source"), "bridge", plan_.network.bridge);
        set(node.append_child("model"), "type", "virtio");
        place(node, Device::network);
    }

    void bind_socket(xml_node device, const std::string& name) const {
        auto source = device.append_child("source");
        set(source, "mode", "bind");
        set(source, "path", join_path(plan_.directory, name));
    }

    void console() {
        auto node = devices_.append_child("serial");
        set(node, "type", "unix");
        bind_socket(node, "console.sock");
        auto log = node.append_child("log");
        set(log, "file", join_path(plan_.directory, "serial.log"));
        set(log, "append", "on");
        auto target = node.append_child("target");
        set(target, "type", "isa-serial");
        set(target, "port", 0);
        set(target.append_child("model"), "name", "isa-serial");
    }

    void channel() {
        if (plan_.channel != qemu::ChannelMode::virtio_serial)
            return;
        for (const auto& port : protocol::channel_ports) {
            auto node = devices_.append_child("channel");
            set(node, "type", "unix");
            bind_socket(node, fmt::format("ch{}.sock", port.number));
            auto target = node.append_child("target");
            set(target, "type", "virtio");
            set(target, "name", std::string(port.guest_name));
            auto address = node.append_child("address");
            set(address, "type", "virtio-serial");
            set(address, "controller", 0);
            set(address, "bus", 0);
            set(address, "port", port.number);
        }
    }

    void vsock() {
        if (plan_.channel != qemu::ChannelMode::vsock)
            return;
        auto node = devices_.append_child("vsock");
        set(node, "model", "virtio");
        auto cid = node.append_child("cid");
        set(cid, "auto", plan_.vsock_cid == 0 ? "yes" : "no");
        if (plan_.vsock_cid != 0) // claimed and let go: the host API has to know whose call it is
            set(cid, "address", plan_.vsock_cid);
        place(node, Device::channel);
    }

    // --- protection ----------------------------------------------------------------------------

    void launch_security() {
        if (!tdx())
            return;
        auto node = domain_.append_child("launchSecurity");
        set(node, "type", "tdx");
        if (plan_.mr_config_id)
            add_text(node, "mrConfigId", crypto::to_base64(*plan_.mr_config_id));
        if (plan_.qgs)
            set(node.append_child("quoteGenerationService"), "path", plan_.qgs->unix_path);
    }

    void security_labels() {
        if (!facts_.user)
            return;
        auto node = domain_.append_child("seclabel");
        set(node, "type", "static");
        set(node, "model", "dac");
        set(node, "relabel", "no"); // neither the image nor the instance folder changes hands
        add_text(node, "label", fmt::format("+{}:+{}", facts_.user->uid, facts_.user->gid));
    }

    // --- what XML cannot say -------------------------------------------------------------------

    void command_line() {
        std::vector<std::string> words;
        // <interface type='user'> has neither `restrict` (egress off) nor `hostfwd` (it forwards
        // ports through passt only) nor `dhcpstart` (the address to which hostfwd leads).
        if (is_user_network()) {
            words.insert(words.end(), {"-netdev", qemu::user_netdev(plan_)});
            Json card = {{"driver", "virtio-net-pci"}, {"netdev", "net0"}};
            if (!plan_.mac.empty())
                card["mac"] = plan_.mac;
            card["bus"] = "pcie.0";
            card["addr"] = fmt::format("0x{:x}", slots_.at(Device::network));
            words.insert(words.end(), {"-device", card.dump()});
        }
        // <target hotplug='off'/> is of a single controller; this is the whole machine's.
        if (plan_.pci_hotplug_off)
            words.insert(words.end(),
                         {"-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off"});
        if (words.empty())
            return;
        set(domain_, "xmlns:qemu", commandline_namespace);
        auto node = domain_.append_child("qemu:commandline");
        for (const auto& word : words)
            set(node.append_child("qemu:arg"), "value", word);
    }

    const qemu::LaunchPlan& plan_;
    const DomainFacts& facts_;
    pugi::xml_document document_;
    xml_node domain_, devices_;
    std::map<Device, unsigned> slots_; ///< On pcie.0.
    unsigned next_slot_ = 1;
    std::size_t next_bus_ = 0;                       ///< The index of the next PCI controller.
    std::map<std::size_t, std::size_t> expander_of_; ///< Guest NUMA node -> bus.
    std::map<std::size_t, unsigned> slots_on_expander_;
    std::vector<std::pair<std::size_t, spec::PciAddress>> gpus_; ///< Each on the bus of its port.
    std::size_t disk_count_ = 0;
};

} // namespace

std::string format_version(Version version) {
    return fmt::format("{}.{}.{}", version / 1'000'000, version / 1'000 % 1'000, version % 1'000);
}

std::string domain_name(const std::string& instance_id) {
    return fmt::format("host-runner-{}", instance_id);
}

std::string domain_uuid(const std::string& instance_id) {
    auto hash = crypto::sha256("host_runner libvirt domain " + instance_id);
    // RFC 9562 section 5.8: version 8, a value of one's own making.
    hash[6] = static_cast<std::uint8_t>((hash[6] & 0x0fU) | 0x80U);
    hash[8] = static_cast<std::uint8_t>((hash[8] & 0x3fU) | 0x80U);
    const auto hex = crypto::to_hex(hash);
    return fmt::format("{}-{}-{}-{}-{}", hex.substr(0, 8), hex.substr(8, 4), hex.substr(12, 4),
                       hex.substr(16, 4), hex.substr(20, 12));
}

Result<void> check_version(Version version, spec::Tee tee) {
    return tee == spec::Tee::tdx ? require_version("A TD", tdx_version, version) : Result<void>{};
}

Result<DomainIdentity> domain_identity(const std::string& xml) {
    pugi::xml_document document;
    if (!document.load_string(xml.c_str()))
        return fail(ErrorCode::corrupt_data, "The description of a libvirt domain is no XML");
    const auto domain = document.child("domain");
    return DomainIdentity{domain.child_value("name"), domain.child_value("uuid")};
}

Result<std::string> build_domain_xml(const qemu::LaunchPlan& plan, const DomainFacts& facts) {
    HR_CHECK(check_texts(plan, facts));
    HR_CHECK(check_tdx(plan, facts));
    return DomainBuilder(plan, facts).build();
}

} // namespace host_runner::libvirt

// SPDX-License-Identifier: Apache-2.0
#include "argv_case.hpp"

#include <algorithm>
#include <functional>
#include <map>
#include <sstream>

#include "host_runner/base/files.hpp"
#include "host_runner/base/units.hpp"
#include "host_runner/crypto/digest.hpp"

namespace host_runner::tests {

namespace {

tl::unexpected<Error> bad(const std::string& name, const std::string& value) {
    return fail(ErrorCode::invalid_argument, "bad line in options.txt: " + name + " = " + value);
}

template <class T>
Result<void> choose(T& target, const std::map<std::string, T>& choices, const std::string& name,
                    const std::string& value) {
    const auto found = choices.find(value);
    if (found == choices.end())
        return bad(name, value);
    target = found->second;
    return {};
}

/// Takes the first word off `text`.
std::string take_word(std::string& text) {
    const auto end = std::min(text.find(' '), text.size());
    auto word = text.substr(0, end);
    text.erase(0, std::min(end + 1, text.size()));
    return word;
}

class Parser {
public:
    Result<ArgvCase> parse(const std::string& text) {
        std::istringstream lines(text);
        std::string line;
        while (std::getline(lines, line)) {
            if (line.empty() || line.front() == '#')
                continue;
            const auto equals = line.find(" = ");
            if (equals == std::string::npos)
                return bad(line, "");
            HR_CHECK(set(line.substr(0, equals), line.substr(equals + 3)));
        }
        if (plan().layout == image::Layout::c && plan().network.mode == spec::NetworkMode::user)
            plan().mac = qemu::mac_address(plan().instance_id, 0);
        return case_;
    }

private:
    qemu::LaunchPlan& plan() {
        return case_.plan;
    }

    Result<void> set(const std::string& name, const std::string& value) {
        using Setter = std::function<Result<void>(const std::string&)>;
        const auto text = [](std::string& target) -> Setter {
            return [&target](const std::string& v) -> Result<void> {
                target = v;
                return {};
            };
        };
        const auto optional_text = [](std::optional<std::string>& target) -> Setter {
            return [&target](const std::string& v) -> Result<void> {
                target = v;
                return {};
            };
        };
        const auto one_of = [&](auto& target, auto choices) -> Setter {
            return [&target, choices, name](const std::string& v) {
                return choose(target, choices, name, v);
            };
        };
        const std::map<std::string, bool> yes_no{{"yes", true}, {"no", false}};
        const std::map<std::string, Setter> setters{
            {"layout", one_of(plan().layout,
                              std::map<std::string, image::Layout>{{"a", image::Layout::a},
                                                                   {"b", image::Layout::b},
                                                                   {"c", image::Layout::c}})},
            {"guest", one_of(plan().guest, std::map<std::string, image::Guest>{
                                               {"dstack", image::Guest::dstack},
                                               {"host-runner", image::Guest::host_runner}})},
            {"tee", one_of(plan().tee,
                           std::map<std::string, spec::Tee>{{"tdx", spec::Tee::tdx},
                                                            {"none", spec::Tee::none}})},
            {"accelerator",
             one_of(plan().accelerator,
                    std::map<std::string, qemu::Accelerator>{{"kvm", qemu::Accelerator::kvm},
                                                             {"tcg", qemu::Accelerator::tcg}})},
            {"cpus", [this](const std::string& v) { return set_cpus(v); }},
            {"memory", [this](const std::string& v) { return set_size(plan().memory_bytes, v); }},
            {"id", text(plan().instance_id)},
            {"directory", text(plan().directory)},
            {"kernel", text(plan().kernel)},
            {"initrd", text(plan().initrd)},
            {"rootfs", optional_text(plan().rootfs)},
            {"firmware", optional_text(plan().firmware)},
            {"data_disk", text(plan().data_disk)},
            {"append", text(plan().command_line)},
            {"network", one_of(plan().network.mode, std::map<std::string, spec::NetworkMode>{
                                                        {"none", spec::NetworkMode::none}})},
            {"egress", one_of(plan().egress, yes_no)},
            {"sandbox", one_of(plan().sandbox, yes_no)},
            {"reserve_memory", one_of(plan().reserve_memory, yes_no)},
            {"pci_hotplug",
             one_of(plan().pci_hotplug_off, std::map<std::string, bool>{{"off", true}})},
            {"hugepages", text(plan().hugepage_path)},
            {"ports", [this](const std::string& v) { return set_ports(v); }},
            {"channel", [this](const std::string& v) { return set_channel(v); }},
            {"share", [this](const std::string& v) { return set_share(v); }},
            {"numa_node", [this](const std::string& v) { return add_numa_node(v); }},
            {"gpu", [this](const std::string& v) { return add_gpu(v, false); }},
            {"nvswitch", [this](const std::string& v) { return add_gpu(v, true); }},
            {"handed", [this](const std::string& v) { return add_handed(v); }},
            {"pci_hole64", [this](const std::string& v) { return set_hole(v); }},
            {"compose_hash", [this](const std::string& v) { return set_compose_hash(v); }},
            {"qgs", [this](const std::string& v) { return set_qgs(v); }},
            {"qemu", [this](const std::string& v) { return set_qemu(v); }},
        };
        const auto found = setters.find(name);
        return found == setters.end() ? bad(name, value) : found->second(value);
    }

    Result<void> set_cpus(const std::string& value) {
        plan().cpus = static_cast<std::uint32_t>(std::stoul(value));
        return {};
    }

    static Result<void> set_size(std::uint64_t& target, const std::string& value) {
        HR_TRY(target, parse_size(value));
        return {};
    }

    Result<void> set_hole(const std::string& value) {
        return set_size(plan().pci_hole64_bytes.emplace(), value);
    }

    Result<void> set_ports(const std::string& value) {
        HR_TRY(plan().ports, spec::parse_port_mappings(value));
        return {};
    }

    /// "virtio-serial", "vsock CID FD", "tcp"
    Result<void> set_channel(std::string value) {
        HR_CHECK(choose(plan().channel,
                        std::map<std::string, qemu::ChannelMode>{
                            {"virtio-serial", qemu::ChannelMode::virtio_serial},
                            {"vsock", qemu::ChannelMode::vsock},
                            {"tcp", qemu::ChannelMode::tcp}},
                        "channel", take_word(value)));
        if (plan().channel == qemu::ChannelMode::vsock) {
            plan().vsock_cid = static_cast<std::uint32_t>(std::stoul(take_word(value)));
            plan().vsock_fd = std::stoi(take_word(value));
        }
        return {};
    }

    /// "disk PATH read-only", "plan9 PATH"
    Result<void> set_share(std::string value) {
        HR_CHECK(choose(plan().share,
                        std::map<std::string, qemu::ShareMode>{{"plan9", qemu::ShareMode::plan9},
                                                               {"disk", qemu::ShareMode::disk}},
                        "share", take_word(value)));
        const std::string mark = " read-only";
        plan().share_read_only = value.ends_with(mark);
        if (plan().share_read_only)
            value.resize(value.size() - mark.size());
        plan().share_path = value;
        return {};
    }

    /// "HOST_NODE FIRST_CPU-LAST_CPU SIZE"
    Result<void> add_numa_node(std::string value) {
        qemu::NumaNode node;
        node.host_node = static_cast<std::uint32_t>(std::stoul(take_word(value)));
        const auto cpus = take_word(value);
        node.first_cpu = static_cast<std::uint32_t>(std::stoul(cpus));
        node.last_cpu = static_cast<std::uint32_t>(std::stoul(cpus.substr(cpus.find('-') + 1)));
        HR_CHECK(set_size(node.memory_bytes, value));
        plan().numa_nodes.push_back(node);
        return {};
    }

    /// "PATH FD" or "PATH FD READ_ONLY_FD"
    Result<void> add_handed(std::string value) {
        auto& file = plan().handed[take_word(value)];
        file.fd = std::stoi(take_word(value));
        if (!value.empty())
            file.read_only_fd = std::stoi(value);
        return {};
    }

    /// "ADDRESS", "ADDRESS GUEST_NODE" or "ADDRESS GUEST_NODE VFIO_FILE"
    Result<void> add_gpu(std::string value, bool is_nvswitch) {
        HR_TRY(const auto addresses, spec::parse_pci_addresses(take_word(value)));
        const auto word = take_word(value);
        const auto node = word.empty() ? 0U : static_cast<std::uint32_t>(std::stoul(word));
        for (const auto& address : addresses)
            plan().gpus.push_back({address, node, is_nvswitch, value});
        return {};
    }

    Result<void> set_compose_hash(const std::string& value) {
        HR_TRY(const auto bytes, crypto::from_hex(value));
        std::array<std::uint8_t, 32> hash{};
        if (bytes.size() != hash.size())
            return bad("compose_hash", value);
        std::copy(bytes.begin(), bytes.end(), hash.begin());
        plan().mr_config_id = qemu::mr_config_id_v1(hash);
        return {};
    }

    Result<void> set_qgs(const std::string& value) {
        HR_TRY(plan().qgs, spec::parse_qgs_address(value));
        return {};
    }

    /// "VERSION FEATURE..."
    Result<void> set_qemu(std::string value) {
        auto& known = case_.capabilities;
        known.path = "/usr/bin/qemu-system-x86_64";
        known.version = take_word(value);
        char dot = 0;
        std::istringstream(known.version) >> known.major >> dot >> known.minor >> dot >>
            known.micro;
        known.json_netdev = true;
        const std::map<std::string, bool*> features{
            {"tdx-guest", &known.tdx_guest},
            {"quote-generation-socket", &known.tdx_quote_socket},
            {"iommufd", &known.iommufd},
            {"vhost-vsock-pci", &known.vhost_vsock},
            {"virtio-9p-pci", &known.virtio_9p},
            {"exit-with-parent", &known.run_with_exit_with_parent},
        };
        while (!value.empty()) {
            const auto found = features.find(take_word(value));
            if (found == features.end())
                return bad("qemu", value);
            *found->second = true;
        }
        return {};
    }

    ArgvCase case_;
};

} // namespace

Result<ArgvCase> load_argv_case(const std::string& path) {
    HR_TRY(const auto text, read_file(path, 64UL * 1024));
    return Parser().parse(text);
}

} // namespace host_runner::tests

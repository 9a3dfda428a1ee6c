// SPDX-License-Identifier: Apache-2.0
#include "host_runner/host/pci.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <limits>

#include <unistd.h>

#include <fmt/format.h>

#include "host_runner/base/files.hpp"
#include "parse.hpp"

namespace host_runner::host {

namespace {

using spec::PciAddress;

/// No attribute of sysfs is longer than a page.
constexpr std::size_t max_attribute_bytes = 4096;

// Linux include/linux/ioport.h
constexpr std::uint64_t resource_io = 0x00000100;
constexpr std::uint64_t resource_memory = 0x00000200;
constexpr std::uint64_t resource_prefetchable = 0x00002000;
constexpr std::uint64_t resource_64bit = 0x00100000;

constexpr unsigned bar_count = 6; // a device's; what follows is its ROM, SR-IOV and bridge windows

tl::unexpected<Error> bad_attribute(const std::string& path, std::string_view text) {
    return fail(ErrorCode::corrupt_data,
                fmt::format("{} holds '{}', which is not what the kernel writes there", path,
                            text.substr(0, 64)));
}

Result<std::string> read_attribute(const std::string& path) {
    HR_TRY(auto text, read_file(path, max_attribute_bytes));
    while (text.ends_with('\n'))
        text.pop_back();
    return text;
}

template <class Number>
Result<Number> read_hex(const std::string& path) {
    HR_TRY(const auto text, read_attribute(path));
    const auto number = parse_hex<Number>(text);
    if (!number)
        return bad_attribute(path, text);
    return *number;
}

/// The last part of what the link names; empty when there is no such link.
Result<std::string> link_name(const std::string& path) {
    std::array<char, PATH_MAX> target{};
    const auto length = ::readlink(path.c_str(), target.data(), target.size());
    if (length < 0 && errno == ENOENT)
        return std::string();
    if (length < 0)
        return fail_errno(fmt::format("Cannot read the link {}", path), errno);
    return base_name(std::string_view(target.data(), static_cast<std::size_t>(length)));
}

std::optional<PciAddress> address_of(std::string_view name) {
    const auto parsed = spec::parse_pci_addresses(name);
    // Longer domains (of virtual root complexes) have no place in a PciAddress.
    if (!parsed || parsed->size() != 1 || spec::format_pci_address(parsed->front()) != name)
        return std::nullopt;
    return parsed->front();
}

Result<std::vector<PciAddress>> addresses_in(const std::string& folder) {
    HR_TRY(const auto names, list_directory(folder));
    std::vector<PciAddress> addresses;
    for (const auto& name : names)
        if (const auto address = address_of(name))
            addresses.push_back(*address);
    std::sort(addresses.begin(), addresses.end());
    return addresses;
}

Result<void> read_group(PciDevice& device, const std::string& folder, const HostRoot& root) {
    HR_TRY(const auto name, link_name(folder + "/iommu_group"));
    if (name.empty())
        return {};
    device.iommu_group = parse_number<std::uint32_t>(name, 10);
    if (!device.iommu_group)
        return bad_attribute(folder + "/iommu_group", name);
    HR_TRY(device.group_members,
           addresses_in(root.path(fmt::format("/sys/kernel/iommu_groups/{}/devices", name))));
    return {};
}

Result<void> read_node(PciDevice& device, const std::string& path) {
    if (!path_exists(path)) // a kernel without NUMA
        return {};
    HR_TRY(const auto text, read_attribute(path));
    const auto node = parse_number<std::int32_t>(text, 10);
    if (!node)
        return bad_attribute(path, text);
    if (*node >= 0)
        device.numa_node = static_cast<std::uint32_t>(*node);
    return {};
}

Result<void> read_override(PciDevice& device, const std::string& path) {
    if (!path_exists(path))
        return {};
    HR_TRY(auto text, read_attribute(path));
    if (text != "(null)")
        device.driver_override = std::move(text);
    return {};
}

Result<void> check_present(const PciAddress& address, const std::string& folder) {
    if (path_exists(folder))
        return {};
    return fail(ErrorCode::not_found,
                fmt::format("There is no PCI device {}", spec::format_pci_address(address)),
                "host_runner gpu list shows the GPUs of this machine, lspci -D all devices");
}

} // namespace

std::string pci_device_path(const PciAddress& address) {
    return "/sys/bus/pci/devices/" + spec::format_pci_address(address);
}

Result<PciDevice> read_pci_device(const PciAddress& address, const HostRoot& root) {
    const auto folder = root.path(pci_device_path(address));
    HR_CHECK(check_present(address, folder));
    PciDevice device;
    device.address = address;
    HR_TRY(device.class_code, read_hex<std::uint32_t>(folder + "/class"));
    HR_TRY(device.vendor, read_hex<std::uint16_t>(folder + "/vendor"));
    HR_TRY(device.device, read_hex<std::uint16_t>(folder + "/device"));
    HR_TRY(device.driver, link_name(folder + "/driver"));
    HR_CHECK(read_override(device, folder + "/driver_override"));
    HR_CHECK(read_group(device, folder, root));
    HR_CHECK(read_node(device, folder + "/numa_node"));
    HR_TRY(const auto resources, read_attribute(folder + "/resource"));
    HR_TRY(device.bars, parse_pci_resources(resources).map_error([&](Error error) {
        error.message = fmt::format("{}/resource: {}", folder, error.message);
        return error;
    }));
    device.can_reset = path_exists(folder + "/reset");
    if (const auto names = list_directory(folder + "/vfio-dev"); names && !names->empty())
        device.vfio_cdev = names->front();
    return device;
}

Result<std::string> read_pci_driver(const PciAddress& address, const HostRoot& root) {
    const auto folder = root.path(pci_device_path(address));
    HR_CHECK(check_present(address, folder));
    return link_name(folder + "/driver");
}

Result<std::vector<PciAddress>> list_pci_devices(const HostRoot& root) {
    const auto folder = root.path("/sys/bus/pci/devices");
    if (!path_exists(folder))
        return std::vector<PciAddress>();
    return addresses_in(folder);
}

Result<std::vector<PciBar>> parse_pci_resources(std::string_view text) {
    std::vector<PciBar> bars;
    for (unsigned index = 0; index < bar_count && !text.empty(); ++index) {
        const auto line = next_line(text);
        auto rest = line;
        const auto start = parse_hex<std::uint64_t>(next_word(rest));
        const auto end = parse_hex<std::uint64_t>(next_word(rest));
        const auto flags = parse_hex<std::uint64_t>(next_word(rest));
        const bool is_whole = start && end && flags && next_word(rest).empty();
        if (!is_whole || *end < *start ||
            *end - *start == std::numeric_limits<std::uint64_t>::max())
            return fail(ErrorCode::corrupt_data, fmt::format("Line {} is '{}', not START END FLAGS",
                                                             index + 1, line.substr(0, 64)));
        if ((*flags & (resource_io | resource_memory)) == 0)
            continue;
        PciBar bar;
        bar.index = index;
        bar.size_bytes = *end - *start + 1;
        bar.is_memory = (*flags & resource_memory) != 0;
        bar.is_64bit = (*flags & resource_64bit) != 0;
        bar.is_prefetchable = (*flags & resource_prefetchable) != 0;
        bars.push_back(bar);
    }
    return bars;
}

std::string find_in_pci_ids(std::string_view text, std::uint16_t vendor, std::uint16_t device) {
    const auto vendor_head = fmt::format("{:04x}  ", vendor);
    const auto device_head = fmt::format("\t{:04x}  ", device);
    bool is_in_vendor = false;
    while (!text.empty()) {
        const auto line = next_line(text);
        if (line.empty() || line.front() == '#')
            continue;
        if (line.front() != '\t') {
            if (is_in_vendor)
                break;
            is_in_vendor = line.starts_with(vendor_head);
        } else if (is_in_vendor && line.starts_with(device_head)) {
            return std::string(line.substr(device_head.size()));
        }
    }
    return {};
}

} // namespace host_runner::host

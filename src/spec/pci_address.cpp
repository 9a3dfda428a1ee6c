// SPDX-License-Identifier: Apache-2.0
#include "host_runner/spec/pci_address.hpp"

#include <fmt/format.h>

#include "text.hpp"

namespace host_runner::spec {

namespace {

constexpr unsigned max_device = 31;
constexpr unsigned max_function = 7;

Result<PciAddress> parse_one(std::string_view text) {
    const auto bad =
        fail(ErrorCode::invalid_argument, fmt::format("'{}' is not a PCI address", text),
             "write DOMAIN:BUS:DEVICE.FUNCTION or BUS:DEVICE.FUNCTION in hexadecimal, "
             "e.g. 0000:b8:00.0 or b8:00.0 as lspci prints them; or `all` alone");
    auto parts = split(text, ':');
    if (parts.size() == 2)
        parts.insert(parts.begin(), "0000");
    if (parts.size() != 3)
        return bad;
    const auto device_and_function = split(parts[2], '.');
    if (device_and_function.size() != 2 || parts[0].size() != 4 || parts[1].size() != 2 ||
        device_and_function[0].size() != 2 || device_and_function[1].size() != 1)
        return bad;
    const auto domain = parse_number<std::uint16_t>(parts[0], 16);
    const auto bus = parse_number<std::uint8_t>(parts[1], 16);
    const auto device = parse_number<std::uint8_t>(device_and_function[0], 16);
    const auto function = parse_number<std::uint8_t>(device_and_function[1], 16);
    if (!domain || !bus || !device || !function || *device > max_device || *function > max_function)
        return bad;
    return PciAddress{*domain, *bus, *device, *function};
}

} // namespace

Result<std::vector<PciAddress>> parse_pci_addresses(std::string_view text) {
    std::vector<PciAddress> addresses;
    for (const auto part : split(text, ',')) {
        HR_TRY(const auto address, parse_one(trim(part)));
        addresses.push_back(address);
    }
    return addresses;
}

std::string format_pci_address(const PciAddress& address) {
    return fmt::format("{:04x}:{:02x}:{:02x}.{}", address.domain, address.bus, address.device,
                       address.function);
}

} // namespace host_runner::spec

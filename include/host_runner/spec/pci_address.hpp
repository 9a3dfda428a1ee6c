// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "host_runner/base/error.hpp"

namespace host_runner::spec {

/// A PCI function: domain:bus:device.function.
struct PciAddress {
    std::uint16_t domain = 0;
    std::uint8_t bus = 0;
    std::uint8_t device = 0;   ///< 0..31
    std::uint8_t function = 0; ///< 0..7
    auto operator<=>(const PciAddress&) const = default;
};

/// "b8:00.0", "0000:b8:00.0", and lists of them with commas; the word "all" is the caller's to
/// know.
/// @errors invalid_argument
[[nodiscard]] Result<std::vector<PciAddress>> parse_pci_addresses(std::string_view text);
/// Always the full form: "0000:b8:00.0".
[[nodiscard]] std::string format_pci_address(const PciAddress& address);

} // namespace host_runner::spec

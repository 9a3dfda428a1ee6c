// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "host_runner/spec/pci_address.hpp"

using namespace host_runner::spec;

/// What is taken must come back the same from its own text.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const auto addresses = parse_pci_addresses({reinterpret_cast<const char*>(data), size});
    if (!addresses)
        return 0;
    for (const auto& address : *addresses)
        HR_ASSERT(parse_pci_addresses(format_pci_address(address)).value().at(0) == address);
    return 0;
}

// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "host_runner/host/pci.hpp"

using namespace host_runner::host;

/// BARs are six at most, in order, and none is empty.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string_view text{reinterpret_cast<const char*>(data), size};
    static_cast<void>(find_in_pci_ids(text, 0x10de, 0x2901));
    const auto bars = parse_pci_resources(text);
    if (!bars)
        return 0;
    HR_ASSERT(bars->size() <= 6);
    for (std::size_t i = 0; i < bars->size(); ++i) {
        HR_ASSERT((*bars)[i].size_bytes > 0);
        HR_ASSERT(i == 0 || (*bars)[i - 1].index < (*bars)[i].index);
    }
    return 0;
}

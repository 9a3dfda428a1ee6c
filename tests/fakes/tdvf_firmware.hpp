// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The bytes of a firmware with TDX metadata, to be damaged by a test.

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace host_runner::tests {

inline constexpr std::string_view
    footer_guid("\xde\x82\xb5\x96\xb2\x1f\xf7\x45\xba\xea\xa3\x66\xc5\x5a"
                "\x08\x2d",
                16);
inline constexpr std::string_view
    tdvf_guid("\x35\x65\x7a\xe4\x4a\x98\x98\x47\x86\x5e\x46\x85\xa7\xbf"
              "\x8e\xc2",
              16);
inline constexpr std::string_view other_guid("0123456789abcdef", 16);

template <class T>
std::string little_endian(T value) {
    std::string bytes(sizeof value, '\0');
    std::memcpy(bytes.data(), &value, sizeof value); // this project is for x86 only
    return bytes;
}

struct TdvfSection {
    std::uint32_t data_offset = 0, data_bytes = 0;
    std::uint64_t address = 0, memory_bytes = 4096;
    std::uint32_t type = 0, attributes = 0;
};

/// The layout of edk2's OvmfPkg: descriptor somewhere, GUID table before the last 32 bytes.
struct TdvfFirmware {
    std::vector<TdvfSection> sections{{0, 256, 0xffc00000, 4096, 0, 1},
                                      {0, 0, 0x800000, 8192, 3, 0}};
    std::uint32_t version = 1;
    std::string signature = "TDVF";
    std::string_view entry_guid = tdvf_guid;
    std::uint16_t table_bytes = 18 + 22 + 26;
    std::uint16_t other_entry_bytes = 26;
    std::uint32_t distance = 512;

    [[nodiscard]] std::string build() const {
        std::string descriptor =
            signature + little_endian(static_cast<std::uint32_t>(16 + 32 * sections.size())) +
            little_endian(version) + little_endian(static_cast<std::uint32_t>(sections.size()));
        for (const auto& section : sections)
            descriptor += little_endian(section.data_offset) + little_endian(section.data_bytes) +
                          little_endian(section.address) + little_endian(section.memory_bytes) +
                          little_endian(section.type) + little_endian(section.attributes);
        const std::string table = little_endian(distance) + little_endian(std::uint16_t{22}) +
                                  std::string(entry_guid) + std::string(8, 'd') +
                                  little_endian(other_entry_bytes) + std::string(other_guid) +
                                  little_endian(table_bytes) + std::string(footer_guid);
        std::string bytes(1024, '\0');
        bytes.replace(1024 - 512, descriptor.size(), descriptor);
        bytes.replace(1024 - 32 - table.size(), table.size(), table);
        return bytes;
    }
};

} // namespace host_runner::tests

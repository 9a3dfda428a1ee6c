// SPDX-License-Identifier: Apache-2.0
#include "host_runner/image/tdvf.hpp"

#include <array>
#include <optional>

#include <fmt/format.h>

#include "host_runner/base/files.hpp"

namespace host_runner::image {

namespace {

using Guid = std::array<std::uint8_t, 16>; // as stored: the first three fields little-endian

// 96b582de-1fb2-45f7-baea-a366c55a082d
constexpr Guid table_footer_guid{0xde, 0x82, 0xb5, 0x96, 0xb2, 0x1f, 0xf7, 0x45,
                                 0xba, 0xea, 0xa3, 0x66, 0xc5, 0x5a, 0x08, 0x2d};
// e47a6535-984a-4798-865e-4685a7bf8ec2
constexpr Guid tdvf_guid{0x35, 0x65, 0x7a, 0xe4, 0x4a, 0x98, 0x98, 0x47,
                         0x86, 0x5e, 0x46, 0x85, 0xa7, 0xbf, 0x8e, 0xc2};

constexpr std::size_t max_firmware_bytes = 64U << 20;
constexpr std::size_t after_table = 32; // the reset vector's block behind the table
constexpr std::size_t guid_bytes = 16;
constexpr std::size_t entry_tail_bytes = guid_bytes + 2; // the length, then the GUID
constexpr std::size_t descriptor_bytes = 16; // "TDVF", length, version, number of sections
constexpr std::size_t section_bytes = 32;

template <class T>
T read_little_endian(std::string_view bytes, std::size_t offset) {
    T value = 0;
    for (std::size_t i = 0; i < sizeof(T); ++i)
        value = static_cast<T>(value | static_cast<T>(static_cast<std::uint8_t>(bytes[offset + i]))
                                           << (8 * i));
    return value;
}

bool has_guid(std::string_view bytes, std::size_t offset, const Guid& guid) {
    return bytes.substr(offset, guid_bytes) ==
           std::string_view(reinterpret_cast<const char*>(guid.data()), guid.size());
}

tl::unexpected<Error> broken(std::string what) {
    return fail(ErrorCode::corrupt_data, std::move(what));
}

/// The descriptor's distance from the end of the file, from the GUID table. Its entries are read
/// from the last to the first: data, length of the whole entry, GUID.
Result<std::uint32_t> find_descriptor_distance(std::string_view firmware) {
    if (firmware.size() < after_table + entry_tail_bytes)
        return broken("it is too short");
    const auto table_end = firmware.size() - after_table;
    if (!has_guid(firmware, table_end - guid_bytes, table_footer_guid))
        return broken("it has no table of GUIDs before its end");
    const std::size_t table_bytes =
        read_little_endian<std::uint16_t>(firmware, table_end - entry_tail_bytes);
    if (table_bytes < entry_tail_bytes || table_bytes > table_end)
        return broken(fmt::format("its table of GUIDs has the impossible length {}", table_bytes));
    const auto table_start = table_end - table_bytes;
    auto end = table_end - entry_tail_bytes;
    while (end - table_start >= entry_tail_bytes) {
        const std::size_t length =
            read_little_endian<std::uint16_t>(firmware, end - entry_tail_bytes);
        if (length < entry_tail_bytes || length > end - table_start)
            return broken(
                fmt::format("an entry of its table of GUIDs has the impossible length {}", length));
        if (has_guid(firmware, end - guid_bytes, tdvf_guid)) {
            if (length != entry_tail_bytes + sizeof(std::uint32_t))
                return broken("the TDVF entry of its table of GUIDs has a wrong length");
            return read_little_endian<std::uint32_t>(firmware, end - length);
        }
        end -= length;
    }
    return broken("its table of GUIDs has no TDVF entry");
}

} // namespace

Result<TdvfDescriptor> parse_tdvf(std::string_view firmware) {
    HR_TRY(const std::size_t distance, find_descriptor_distance(firmware));
    if (distance < descriptor_bytes || distance > firmware.size())
        return broken("its TDVF entry points outside the file");
    const auto offset = firmware.size() - distance;
    if (firmware.substr(offset, 4) != "TDVF")
        return broken("there is no TDVF descriptor where its table of GUIDs says");
    const auto length = read_little_endian<std::uint32_t>(firmware, offset + 4);
    const auto version = read_little_endian<std::uint32_t>(firmware, offset + 8);
    const auto sections = read_little_endian<std::uint32_t>(firmware, offset + 12);
    if (version != 1)
        return broken(fmt::format("its TDVF descriptor has version {}, only 1 is known", version));
    if (sections == 0 || sections > (distance - descriptor_bytes) / section_bytes ||
        length != descriptor_bytes + sections * section_bytes)
        return broken(
            fmt::format("its TDVF descriptor has {} sections in {} bytes", sections, length));
    for (std::uint32_t i = 0; i < sections; ++i) {
        const auto section = offset + descriptor_bytes + i * section_bytes;
        const auto data_offset = read_little_endian<std::uint32_t>(firmware, section);
        const auto data_bytes = read_little_endian<std::uint32_t>(firmware, section + 4);
        const auto memory_bytes = read_little_endian<std::uint64_t>(firmware, section + 16);
        if (data_offset > firmware.size() || data_bytes > firmware.size() - data_offset)
            return broken(fmt::format("TDVF section {} lies outside the file", i));
        if (memory_bytes < data_bytes)
            return broken(fmt::format("TDVF section {} is larger than its memory", i));
    }
    return TdvfDescriptor{offset, sections};
}

Result<void> check_tdvf(const std::string& path) {
    HR_TRY(const auto firmware, read_file(path, max_firmware_bytes));
    if (const auto descriptor = parse_tdvf(firmware); !descriptor)
        return fail(
            ErrorCode::corrupt_data,
            fmt::format("Firmware {} cannot start a TD: {}", path, descriptor.error().message),
            "use an image with a TDX firmware (OVMF's IntelTdx build), or --tee none");
    return {};
}

} // namespace host_runner::image

// SPDX-License-Identifier: Apache-2.0
#include "host_runner/host/pci_hole.hpp"

#include <algorithm>
#include <bit>

#include <fmt/format.h>

#include "first_processor.hpp"
#include "host_runner/base/units.hpp"
#include "parse.hpp"

namespace host_runner::host {

namespace {

constexpr std::uint64_t default_hole_bytes = 32 * gib;
/// Low memory and the hole below 4 GiB, above which the rest of the memory begins.
constexpr std::uint64_t low_bytes = 4 * gib;
/// Larger sums mean nothing: no processor has such addresses.
constexpr std::uint64_t most_bytes = std::uint64_t{1} << 60U;

std::uint64_t round_up(std::uint64_t bytes, std::uint64_t unit) {
    return (bytes + unit - 1) / unit * unit;
}

/// Of one device behind its own root port.
struct Window {
    std::uint64_t size = 0;
    std::uint64_t alignment = 0;
};

std::optional<Window> window_of(const PciDevice& device) {
    Window window;
    for (const auto& bar : device.bars) {
        if (!bar.is_memory || !bar.is_64bit || !bar.is_prefetchable)
            continue;
        if (bar.size_bytes > most_bytes)
            return std::nullopt;
        const auto size = std::bit_ceil(bar.size_bytes);
        window.size += size; // at most 6 of them
        window.alignment = std::max(window.alignment, size);
    }
    if (window.alignment != 0)
        window.size = round_up(window.size, window.alignment);
    return window;
}

tl::unexpected<Error> too_large(std::uint64_t memory_bytes, std::uint64_t hole_bytes,
                                unsigned bits) {
    return fail(ErrorCode::resource_exhausted,
                fmt::format("{} of memory and {} for the devices' BARs do not fit the {} physical "
                            "address bits of the VM's processor",
                            format_size(memory_bytes), format_size(hole_bytes), bits),
                "give the VM fewer GPUs");
}

} // namespace

Result<std::optional<unsigned>> read_physical_address_bits(const HostRoot& root) {
    HR_TRY(const auto start, read_first_processor(root));
    std::string_view text = start;
    while (!text.empty()) {
        auto line = next_line(text);
        if (!line.starts_with("address sizes"))
            continue;
        line.remove_prefix(std::min(line.find(':') + 1, line.size()));
        const auto bits = parse_number<unsigned>(next_word(line), 10);
        if (bits && next_word(line) == "bits" && next_word(line).starts_with("physical") &&
            *bits >= 32 && *bits <= 57)
            return std::optional<unsigned>(*bits);
        break;
    }
    return std::optional<unsigned>();
}

Result<std::optional<std::uint64_t>> size_pci_hole64(const std::vector<PciDevice>& devices,
                                                     std::uint64_t memory_bytes,
                                                     std::optional<unsigned> physical_bits) {
    std::uint64_t sum = 0;
    std::uint64_t largest_alignment = 0;
    for (const auto& device : devices) {
        const auto window = window_of(device);
        if (!window || sum > most_bytes)
            return fail(ErrorCode::corrupt_data,
                        fmt::format("The BARs of {} are larger than any processor can address",
                                    spec::format_pci_address(device.address)));
        sum += window->size;
        largest_alignment = std::max(largest_alignment, window->alignment);
    }
    // The hole begins at a multiple of 1 GiB only, so that the first window may have to move up by
    // all but 1 GiB of its alignment; that is left for the small BARs of all other devices.
    const auto needed = sum + std::max(largest_alignment, gib);
    if (needed <= default_hole_bytes)
        return std::optional<std::uint64_t>();
    const auto hole = std::bit_ceil(needed);
    if (physical_bits) {
        const auto limit = std::uint64_t{1} << *physical_bits;
        const auto begin = round_up(low_bytes + memory_bytes, gib);
        if (hole > limit || begin > limit - hole)
            return too_large(memory_bytes, hole, *physical_bits);
    }
    return std::optional<std::uint64_t>(hole);
}

} // namespace host_runner::host

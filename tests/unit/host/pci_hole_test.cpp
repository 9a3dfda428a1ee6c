// SPDX-License-Identifier: Apache-2.0
#include "host_runner/host/pci_hole.hpp"

#include <gmock/gmock.h>

#include "fakes/host_fixture.hpp"
#include "host_runner/base/units.hpp"

namespace host_runner::host {
namespace {

using testing::HasSubstr;
using tests::HostFixture;

PciDevice with_bars(const std::vector<std::uint64_t>& sizes) {
    PciDevice device;
    for (const auto size : sizes)
        device.bars.push_back({static_cast<unsigned>(device.bars.size()), size, true, true, true});
    return device;
}

/// As the hardware has them.
PciDevice h200() {
    return with_bars({16 * mib, 256 * gib, 32 * mib});
}

std::optional<std::uint64_t> hole(const std::vector<PciDevice>& devices) {
    return size_pci_hole64(devices, 4 * gib, 52).value();
}

TEST(PciHole, stays_as_it_is_where_the_default_holds_the_devices) {
    EXPECT_EQ(hole({}), std::nullopt);
    EXPECT_EQ(hole({with_bars({32 * mib, 64 * mib})}), std::nullopt);
    EXPECT_EQ(hole({with_bars({8 * gib}), with_bars({8 * gib})}), std::nullopt);
}

TEST(PciHole, has_room_for_the_alignment_of_the_first_window) {
    EXPECT_EQ(hole({with_bars({16 * gib})}), std::nullopt) << "16 and 16 to align";
    EXPECT_EQ(hole({with_bars({32 * gib})}), 64 * gib);
}

TEST(PciHole, counts_each_window_as_a_multiple_of_its_largest_bar) {
    // 256 GiB and the small ones behind one port take 512 GiB of address space.
    EXPECT_EQ(hole({h200()}), 1 * tib);
    EXPECT_EQ(hole({h200(), h200()}), 2 * tib);
    EXPECT_EQ(hole(std::vector<PciDevice>(8, h200())), 8 * tib) << "what dstack sets for all";
}

TEST(PciHole, ignores_bars_that_lie_below_4_gib) {
    PciDevice device;
    device.bars = {{0, 1 * gib, true, false, false},
                   {1, 128 * gib, true, true, false},
                   {2, 128, false, false, false}};
    EXPECT_EQ(hole({device}), std::nullopt);
}

TEST(PciHole, rounds_odd_sizes_up) {
    EXPECT_EQ(hole({with_bars({33 * gib})}), 128 * gib);
}

TEST(PciHole, must_fit_the_address_bits_together_with_the_memory) {
    const std::vector<PciDevice> eight(8, h200());
    EXPECT_TRUE(size_pci_hole64(eight, 1 * tib, 44));
    const auto refused = size_pci_hole64(eight, 1 * tib, 43);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::resource_exhausted);
    EXPECT_THAT(refused.error().message, HasSubstr("1T of memory and 8T"));
    EXPECT_THAT(refused.error().message, HasSubstr("43 physical address bits"));
    // The last byte counts: memory above 4 GiB begins there.
    EXPECT_TRUE(size_pci_hole64({h200()}, 1020 * gib, 41));
    EXPECT_FALSE(size_pci_hole64({h200()}, 1021 * gib, 41));
}

TEST(PciHole, is_not_checked_against_bits_that_nobody_knows) {
    EXPECT_EQ(size_pci_hole64({h200()}, 4 * gib, std::nullopt).value(), 1 * tib);
}

TEST(PciHole, refuses_bars_that_no_processor_addresses) {
    EXPECT_EQ(size_pci_hole64({with_bars({std::uint64_t{1} << 61U})}, gib, 52).error().code,
              ErrorCode::corrupt_data);
    EXPECT_FALSE(size_pci_hole64(std::vector<PciDevice>(20, with_bars({std::uint64_t{1} << 60U})),
                                 gib, std::nullopt));
}

TEST(PhysicalAddressBits, are_those_of_the_first_processor) {
    HostFixture host;
    host.write("/proc/cpuinfo", "processor\t: 0\nflags\t\t: vmx\n"
                                "address sizes\t: 46 bits physical, 57 bits virtual\n\n"
                                "address sizes\t: 52 bits physical, 57 bits virtual\n");
    EXPECT_EQ(read_physical_address_bits(host.root()).value(), 46U);
}

TEST(PhysicalAddressBits, are_unknown_without_a_valid_line) {
    for (const auto* const text :
         {"", "processor\t: 0\n", "address sizes\n", "address sizes\t: many bits physical\n",
          "address sizes\t: 99 bits physical\n"}) {
        HostFixture host;
        host.write("/proc/cpuinfo", text);
        EXPECT_EQ(read_physical_address_bits(host.root()).value(), std::nullopt) << text;
    }
}

} // namespace
} // namespace host_runner::host

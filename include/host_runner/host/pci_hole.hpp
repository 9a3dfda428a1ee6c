// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Room in the guest's address space for the large BARs of its devices. Pure, but for reading the
/// width of this machine's addresses.

#include <cstdint>
#include <optional>
#include <vector>

#include "host_runner/base/error.hpp"
#include "host_runner/host/host_root.hpp"
#include "host_runner/host/pci.hpp"

namespace host_runner::host {

/// "address sizes : 46 bits physical" of /proc/cpuinfo; bits that memory encryption takes are off
/// already. nullopt: no such line.
/// @errors not_found, permission_denied, io_error
[[nodiscard]] Result<std::optional<unsigned>> read_physical_address_bits(const HostRoot& root = {});

/// What `-cpu max` has under software emulation (QEMU target/i386/cpu.h, TCG_PHYS_ADDR_BITS).
inline constexpr unsigned emulated_physical_address_bits = 40;

/// The value for q35-pcihost.pci-hole64-size, in bytes, a power of two; nullopt when the default of
/// 32 GiB holds the devices (QEMU hw/pci-host/q35.c). Each device has a root port of its own, whose
/// window the firmware rounds up to the largest BAR behind it and aligns to that.
/// @param memory_bytes   the guest's memory, below the hole
/// @param physical_bits  of the guest's processor; nullopt: not known, and not checked
/// @errors resource_exhausted: memory and hole do not fit the address bits, with the numbers
[[nodiscard]] Result<std::optional<std::uint64_t>>
size_pci_hole64(const std::vector<PciDevice>& devices, std::uint64_t memory_bytes,
                std::optional<unsigned> physical_bits);

} // namespace host_runner::host

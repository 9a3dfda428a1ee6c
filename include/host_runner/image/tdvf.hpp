// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Tells a firmware that can start a TD (a TDVF) from one that cannot, before QEMU says only
/// "failed to parse TDVF".

#include <cstdint>
#include <string>
#include <string_view>

#include "host_runner/base/error.hpp"

namespace host_runner::image {

struct TdvfDescriptor {
    std::uint64_t offset = 0; ///< Of the descriptor in the file.
    std::uint32_t sections = 0;
};

/// Finds and checks the TDVF descriptor in the bytes of a firmware: the GUID table that ends 32
/// bytes before the end of the file (edk2 OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.asm) has an
/// entry with the descriptor's distance from the end; the sections' bytes lie in the file (Intel
/// TDX Virtual Firmware Design Guide, "TDVF metadata").
/// @errors corrupt_data: says what is missing or wrong
[[nodiscard]] Result<TdvfDescriptor> parse_tdvf(std::string_view firmware);

/// The same for a file of at most 64 MiB. @errors as read_file(); corrupt_data with a remedy
[[nodiscard]] Result<void> check_tdvf(const std::string& path);

} // namespace host_runner::image

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// What lies on the guest's virtio disks, told by their first bytes (all written by the host).

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "host_runner/base/error.hpp"

namespace host_runner::agent {

/// The volume label in a FAT boot sector, without its padding; nullopt when `sector` (at least 512
/// bytes) is no FAT boot sector.
/// Source: Microsoft FAT specification (fatgen103), "Boot Sector and BPB": BS_VolLab at offset 43
/// (FAT12/16) or 71 (FAT32), 11 bytes, valid with BS_BootSig 0x29
[[nodiscard]] std::optional<std::string> fat_label(std::string_view sector);

/// The disks /dev/vda, vdb, ... in order, from the names in `device_directory`. Partitions are
/// left out.
[[nodiscard]] Result<std::vector<std::string>> virtio_disks(const std::string& device_directory);

/// The first virtio disk with this FAT label. @errors not_found
[[nodiscard]] Result<std::string> find_fat_disk(const std::string& device_directory,
                                                std::string_view label);

/// True when the first MiB (or the whole, if shorter) holds only zeros.
[[nodiscard]] Result<bool> is_blank(const std::string& device);

} // namespace host_runner::agent

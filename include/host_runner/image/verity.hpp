// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Recomputes an image's dm-verity tree, by veritysetup(8) of cryptsetup-bin: in user space, on
/// plain files, without root.

#include <cstdint>
#include <string>

#include "host_runner/base/error.hpp"
#include "host_runner/image/image.hpp"

namespace host_runner::image {

/// Every block of the root file system (layouts B and C) against `image.rootfs_hash`. The tree
/// starts in the same file at `image.rootfs_size`; in a partitioned file (*.parted.verity, GPT)
/// both are counted from the partition's start at 1 MiB. Takes seconds per GiB, and for a
/// partitioned file as much room as it has in TMPDIR (else /tmp).
/// @param program  veritysetup; empty: from PATH, /usr/sbin or /sbin
/// @errors unsupported: no such program; timeout: not done in an hour; io_error
[[nodiscard]] Result<Check> check_verity(const Image& image, const std::string& program = {});

/// True where the file starts with a GPT, so that its root file system lies in a partition.
[[nodiscard]] Result<bool> is_partitioned(const std::string& path);

/// Where the partition dstack-rootfs starts (dstack 0.6 images).
inline constexpr std::uint64_t rootfs_partition_offset = 1 << 20;

/// dm-verity's block size in these images; the root file system is padded to it.
inline constexpr std::uint64_t verity_block_bytes = 4096;

} // namespace host_runner::image

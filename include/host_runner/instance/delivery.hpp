// SPDX-License-Identifier: Apache-2.0
#pragma once

/// What the host hands to the guest: app-compose.json and its companions, the share disk, and the
/// data disk with its identity.

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "host_runner/base/error.hpp"
#include "host_runner/base/process.hpp"
#include "host_runner/image/image.hpp"
#include "host_runner/instance/registry.hpp"
#include "host_runner/spec/compose.hpp"
#include "host_runner/spec/vm_spec.hpp"

namespace host_runner::instance {

/// The guest's files in memory: nothing is written yet, so a dry run can show the hash.
struct GuestFiles {
    std::string app_compose; ///< Exact bytes of app-compose.json.
    std::array<std::uint8_t, 32> compose_hash{};
    std::vector<spec::LocalFile> files;
    std::vector<spec::PortMapping> ports; ///< From the compose file (our guest only).
    std::vector<std::string> notices;     ///< e.g. "no compose file: the VM starts no services"
};

/// For our guest the resolved compose; for dstack's the file's text unchanged in
/// docker_compose_file (reference: dstack's app-compose.json, manifest_version 2).
/// @errors as resolve_compose(); unsupported: container images with our guest
[[nodiscard]] Result<GuestFiles> make_guest_files(const spec::VmSpec& spec,
                                                  const image::Image& image);

/// Facts that .sys-config.json carries, by image version.
struct SysConfigInput {
    std::string host_api_url; ///< Empty for virtio-serial.
    std::uint32_t cpus = 0;
    std::uint64_t memory_bytes = 0;
    std::string qemu_version;
    std::uint32_t num_gpus = 0;
    std::uint32_t num_nvswitches = 0;
    std::vector<std::string> kms_urls;
};
/// The file's name for the version ("config.json" before 0.4.0) and its bytes.
struct NamedFile {
    std::string name;
    std::string bytes;
};
[[nodiscard]] Result<NamedFile> make_sys_config(const image::Image& image,
                                                const SysConfigInput& input);

/// Writes the app/ folder (0700) anew: app-compose.json, system configuration, .instance_info when
/// there is one, files/<sha256> (hashes checked again while copying).
[[nodiscard]] Result<void> write_app_folder(const InstancePaths& paths, const GuestFiles& files,
                                            const NamedFile& sys_config, const image::Image& image);

/// A raw FAT32 image, 128 MiB and sparse, no partition table, label DSTACKSHR, from the app/
/// folder, by mtools; made under a temporary name and renamed into place.
[[nodiscard]] Result<void> build_share_image(ProcessLauncher& launcher, const InstancePaths& paths);

/// The data disk and .instance_info are one unit, made, moved and removed together.
/// Makes a sparse qcow2 of `bytes` (with `backing_file` when given) unless the unit is there.
///
/// A disk whose guest never reported its identity holds nothing yet and is made anew: the file
/// disk.new beside it says so until store_instance_info().
/// @param cache_directory keeps an empty disk per size, because qemu-img takes 20 ms; empty: none
/// @errors wrong_state: one half exists without the other, or the size differs from what was made
///         (never shrunk, never formatted here); not_found: no qemu-img; unavailable: it failed
[[nodiscard]] Result<void> prepare_data_disk(ProcessLauncher& launcher, const InstancePaths& paths,
                                             const std::string& cache_directory,
                                             std::uint64_t bytes,
                                             const std::optional<std::string>& backing_file);

/// Keeps what the guest reported by `instance.info`: from now on disk and identity are one unit.
/// Losing it would lose the disk, so it is on the host's disk when this returns.
/// @errors invalid_argument: no JSON object, or above 10 KiB; io_error, resource_exhausted
[[nodiscard]] Result<void> store_instance_info(const InstancePaths& paths, std::string_view json);

} // namespace host_runner::instance

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// An image directory: dstack's format of every generation, and ours.

#include <chrono>
#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "host_runner/base/error.hpp"

namespace host_runner::image {

/// Device layouts by generation: A = 0.3.x and 0.4.x (rootfs.iso), B = 0.5.0 to 0.5.5, C = later,
/// and our own image of any version. Generations that are newer than we know get the newest layout.
enum class Layout { a, b, c };
enum class Guest { host_runner, dstack };
/// "A", "B", "C".
[[nodiscard]] std::string_view to_string(Layout layout) noexcept;
/// "host-runner", "dstack".
[[nodiscard]] std::string_view to_string(Guest guest) noexcept;

struct Version {
    std::uint16_t major = 0, minor = 0, patch = 0;
    auto operator<=>(const Version&) const = default;
};
/// "0.5.11".
[[nodiscard]] std::string to_string(const Version& version);

/// A loaded image. Every path is absolute, canonical and inside `directory`.
struct Image {
    std::string directory;
    std::string name; ///< The directory's last part.
    Guest guest = Guest::dstack;
    Version version;
    Layout layout = Layout::c;
    std::string kernel;
    std::string initrd;
    std::optional<std::string> firmware; ///< `bios`
    std::optional<std::string> rootfs;
    std::optional<std::string> disk_backing; ///< `hda`
    std::string command_line;
    /// Layouts B and C: dm-verity root hash, from the command line. A: SHA-256 of the rootfs.cpio
    /// inside rootfs.iso. As written in the image: verify_image() checks its form.
    std::string rootfs_hash;
    std::optional<std::uint64_t> rootfs_size; ///< Bytes before the verity tree; layouts B, C.
    bool shared_read_only = false;            ///< The guest wants its 9p share read-only.
    bool reports_progress = false;            ///< It sends boot.progress to the host API.
    bool is_dev = false;
    std::string os_image_hash; ///< Hex, of digest.txt; empty when the image has none.
};

/// Reads metadata.json and checks form, version, layout, and that each named file is a regular
/// file inside the directory. Cheap: hashes nothing. Without a version in metadata.json the part of
/// the directory's name after its last '-' counts ("dstack-nvidia-dev-0.3.3").
/// @errors not_found: the directory or a file; corrupt_data: names the field or file;
///         invalid_argument: no version to be found; unsupported: a generation or guest that we
///         cannot start
[[nodiscard]] Result<Image> load_image(const std::string& directory);

struct Check {
    std::string name; ///< e.g. "sha256 bzImage"
    bool passed = false;
    std::string detail; ///< What was found; for a failure what was expected too.
};

enum class VerifyDepth {
    launch, ///< sha256sum.txt, digest.txt, command line against files: before every start.
    full,   ///< Also every block of the root file system against the verity root.
};

/// All checks, in a fixed order, none left out after a failure.
/// @errors io_error, permission_denied: a file cannot be read; unsupported: full depth without
///         veritysetup (cryptsetup-bin). A check that fails is a row, not an error
[[nodiscard]] Result<std::vector<Check>> verify_image(const Image& image, VerifyDepth depth);

/// The launch checks, remembered under `cache_directory` by device, inode, size, mtime and ctime of
/// every file concerned, so that a second start does not hash again. A cache that cannot be written
/// only costs that time (logged at debug level); an empty `cache_directory` remembers nothing.
/// @errors corrupt_data: the first check that failed, with a remedy; as verify_image()
[[nodiscard]] Result<void> require_verified(const Image& image, const std::string& cache_directory);

/// The same at a given time, for tests: files that changed in the second before `now` are not
/// remembered, since a later change could leave the same time stamps.
[[nodiscard]] Result<void> require_verified(const Image& image, const std::string& cache_directory,
                                            std::chrono::system_clock::time_point now);

} // namespace host_runner::image

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Takes a release archive (.tar.gz, .tar.xz, .tar.zst) apart into an image directory.
///
///     HR_TRY(auto image, import_image({url, sha256, "images"}, download, show));
///
/// The archive must have the given digest before a byte of it is unpacked. It may hold only regular
/// files in one folder, or beside each other; links, devices, absolute names, ".." and deeper
/// folders are refused, and sizes are capped. The image must load and pass the launch checks. Until
/// then everything lies in one hidden folder of `directory`; only a complete image gets its name.

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "host_runner/base/error.hpp"
#include "host_runner/image/image.hpp"

namespace host_runner::image {

struct ImportRequest {
    std::string source;    ///< A file, or an http:// or https:// URL.
    std::string sha256;    ///< Of the archive: 64 hex digits.
    std::string directory; ///< Where the image directory is made; must exist.
};

enum class ImportStep { download, hash, unpack, verify };
[[nodiscard]] std::string_view to_string(ImportStep step) noexcept;

/// `total_bytes` is 0 where unknown. Called often; comes from the calling thread.
using ImportProgress =
    std::function<void(ImportStep step, std::uint64_t done_bytes, std::uint64_t total_bytes)>;

/// Fetches `url` into the new file `path`. A function, so that this module needs no network.
using Downloader = std::function<Result<void>(
    const std::string& url, const std::string& path,
    const std::function<void(std::uint64_t done_bytes, std::uint64_t total_bytes)>& progress)>;

inline constexpr std::uint64_t max_unpacked_bytes = std::uint64_t{64} << 30;

/// The image's directory is named as the archive's one folder or, without one, as the archive
/// without its ending; the name must be like dstack's: at most 64 of [A-Za-z0-9_.-], no "..".
/// What an interrupted import left behind, the next import of the same archive removes.
/// @errors invalid_argument: the digest's form, or a name; corrupt_data: wrong digest, an archive
///         that breaks a rule, an image that fails its checks; already_exists: an image of that
///         name, or the same import is under way; unsupported: this build lacks the unpacking
///         module; resource_exhausted: no space left; not_found; io_error; those of `download`
[[nodiscard]] Result<Image> import_image(const ImportRequest& request, const Downloader& download,
                                         const ImportProgress& progress = {});

} // namespace host_runner::image

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The text files of an image directory, read without looking at any other file. Pure functions of
/// their bytes, which come from outside: capped in size and depth, fuzzed.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "host_runner/base/error.hpp"
#include "host_runner/image/image.hpp"

namespace host_runner::image {

inline constexpr std::size_t max_metadata_bytes = 1 << 20;
inline constexpr std::size_t max_sums_bytes = 1 << 16;
inline constexpr std::size_t max_sums = 256;

/// metadata.json, field by field as dstack writes it (dstack vmm/src/app/image.rs); fields that
/// are not named here are ignored. File names are checked by is_safe_file_name().
struct Metadata {
    std::string kernel;
    std::string initrd;
    std::optional<std::string> bios;
    std::optional<std::string> rootfs;
    std::optional<std::string> hda;
    std::string cmdline;     ///< Printable, at most max_command_line_length.
    std::string rootfs_hash; ///< Empty: none (images from 0.5 on have it in `cmdline`).
    std::string version;     ///< As written; often empty.
    bool shared_ro = false;
    bool is_dev = false;
    Guest guest = Guest::dstack;
};

/// @errors corrupt_data: names the field; unsupported: a `guest` that we do not know
[[nodiscard]] Result<Metadata> parse_metadata(std::string_view text);

/// x86's COMMAND_LINE_SIZE (Linux arch/x86/include/asm/setup.h) without the final zero: the kernel
/// drops the rest in silence, and with it perhaps the root file system's hash.
inline constexpr std::size_t max_command_line_length = 2047;

/// "0.5.3" and "0.5.3.1" -> {0, 5, 3}: three leading parts of decimal digits, each at most 65535
/// (dstack's rule). nullopt: not of that form.
[[nodiscard]] std::optional<Version> parse_version(std::string_view text);

/// True for a plain name of a file in the image directory: 1 to 255 printable ASCII characters, no
/// '/', not "." or "..".
[[nodiscard]] bool is_safe_file_name(std::string_view name) noexcept;

/// One line of sha256sum.txt.
struct FileSum {
    std::string name;   ///< Safe by is_safe_file_name(); a leading "./" is removed.
    std::string sha256; ///< 64 lower-case hex digits.
};

/// The output of sha256sum(1): 64 hex digits, a space, a space or '*', the name.
/// @errors corrupt_data: names the line
[[nodiscard]] Result<std::vector<FileSum>> parse_sha256sums(std::string_view text);

/// digest.txt: 64 hex digits and a newline; returned in lower case. @errors corrupt_data
[[nodiscard]] Result<std::string> parse_digest(std::string_view text);

/// What the kernel command line says about the root file system (images from 0.5 on).
struct RootfsBinding {
    std::vector<std::string> hashes; ///< Every value of dstack.rootfs_hash=
    std::vector<std::string> sizes;  ///< Every value of dstack.rootfs_size=
};
[[nodiscard]] RootfsBinding find_rootfs_binding(std::string_view command_line);

/// True for exactly 64 hex digits.
[[nodiscard]] bool is_sha256_hex(std::string_view text) noexcept;

/// Decimal digits only. nullopt: another form, or above 2^64-1.
[[nodiscard]] std::optional<std::uint64_t> parse_bytes(std::string_view text) noexcept;

} // namespace host_runner::image

// SPDX-License-Identifier: Apache-2.0
#include "host_runner/image/image.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <iterator>

#include <sys/stat.h>

#include <fmt/format.h>

#include "host_runner/base/files.hpp"
#include "host_runner/image/metadata.hpp"
#include "image_files.hpp"

namespace host_runner::image {

namespace {

struct Generation {
    Version first;
    Layout layout;
};

/// dstack's generations, oldest first, by the device order of its launcher (dstack v0.3.6
/// teepod/src/app/qemu.rs; v0.5.5 and v0.5.6 vmm/src/app/qemu.rs). An older one is unknown; a newer
/// one is taken for the newest that is known.
constexpr std::array generations{
    Generation{{0, 3, 0}, Layout::a},
    Generation{{0, 5, 0}, Layout::b},
    Generation{{0, 5, 6}, Layout::c},
};

Result<std::string> find_directory(const std::string& directory) {
    auto canonical = canonical_path(directory);
    if (!canonical) {
        if (canonical.error().code != ErrorCode::not_found)
            return tl::unexpected(std::move(canonical).error());
        return fail(ErrorCode::not_found,
                    fmt::format("Image directory {} does not exist", directory),
                    "images/build makes one, `host_runner image import` unpacks a release");
    }
    struct stat status {};
    if (::stat(canonical->c_str(), &status) != 0)
        return fail_errno(fmt::format("Cannot look at image directory {}", *canonical), errno);
    if (!S_ISDIR(status.st_mode))
        return fail(ErrorCode::invalid_argument,
                    fmt::format("Image {} is not a directory", directory),
                    "unpack a release archive with `host_runner image import FILE --sha256 HASH`");
    return canonical;
}

Result<Metadata> read_metadata(const std::string& directory) {
    const auto path = find_image_file(directory, metadata_name);
    if (!path) {
        auto error = path.error();
        if (error.code == ErrorCode::not_found)
            error.hint = "an image directory holds metadata.json, kernel, initrd and root file "
                         "system; is this the right directory?";
        return tl::unexpected(std::move(error));
    }
    HR_TRY(const auto text, read_file(*path, max_metadata_bytes));
    auto metadata = parse_metadata(text);
    if (!metadata) {
        auto error = std::move(metadata).error();
        error.message = fmt::format("{} is not valid: {}", *path, error.message);
        if (error.hint.empty())
            error.hint = "get the image again";
        return tl::unexpected(std::move(error));
    }
    return metadata;
}

/// dstack strips only "dstack-dev-" or "dstack-" from the directory's name; the part after the last
/// '-' also serves "dstack-nvidia-dev-0.3.3".
Result<Version> find_version(const Metadata& metadata, const Image& image) {
    if (const auto version = parse_version(metadata.version))
        return *version;
    const auto dash = image.name.rfind('-');
    if (dash != std::string::npos)
        if (const auto version = parse_version(std::string_view(image.name).substr(dash + 1)))
            return *version;
    return fail(ErrorCode::invalid_argument,
                fmt::format("Image {} does not say which version it is: 'version' in its "
                            "metadata.json is \"{}\", and its directory's name does not end in one",
                            image.directory, metadata.version.substr(0, 64)),
                "name the directory NAME-VERSION, for example dstack-0.5.3");
}

Result<Layout> find_layout(const Image& image) {
    if (image.guest == Guest::host_runner)
        return Layout::c;
    const auto later = std::find_if(generations.begin(), generations.end(),
                                    [&](const auto& row) { return row.first > image.version; });
    if (later == generations.begin())
        return fail(ErrorCode::unsupported,
                    fmt::format("Image {} is dstack {}; the oldest that host_runner starts is {}",
                                image.directory, to_string(image.version),
                                to_string(generations.front().first)),
                    "use a newer image");
    return std::prev(later)->layout;
}

/// What the generation asks of the root file system.
Result<void> check_rootfs(const Metadata& metadata, const Image& image) {
    if (!metadata.rootfs) {
        // Our own may run from its initramfs alone. dstack's guests go by the disk's place: without
        // the root file system they would format the wrong one.
        if (image.guest == Guest::host_runner)
            return {};
        return fail(ErrorCode::corrupt_data,
                    fmt::format("metadata.json of image {} has no 'rootfs', which dstack {} needs",
                                image.directory, to_string(image.version)));
    }
    if (image.layout != Layout::a && metadata.rootfs->ends_with(".iso"))
        return fail(
            ErrorCode::corrupt_data,
            fmt::format("Image {} has version {} and the root file system {}, but .iso ended "
                        "with 0.4",
                        image.directory, to_string(image.version), *metadata.rootfs),
            "the version is wrong, or files of two releases are mixed: get the image again");
    if (image.layout == Layout::a && metadata.rootfs_hash.empty())
        return fail(
            ErrorCode::corrupt_data,
            fmt::format("metadata.json of image {} has no 'rootfs_hash', which dstack {} needs",
                        image.directory, to_string(image.version)));
    return {};
}

void bind_rootfs(const Metadata& metadata, Image& image) {
    if (image.layout == Layout::a) {
        image.rootfs_hash = metadata.rootfs_hash;
        return;
    }
    // A value that is missing, doubled or malformed is verify_image()'s to report.
    const auto binding = find_rootfs_binding(metadata.cmdline);
    if (!binding.hashes.empty())
        image.rootfs_hash = binding.hashes.front();
    if (!binding.sizes.empty())
        image.rootfs_size = parse_bytes(binding.sizes.front());
}

Result<std::string> read_digest(const std::string& directory) {
    const auto path = find_image_file(directory, digest_name);
    if (!path) {
        if (path.error().code == ErrorCode::not_found)
            return std::string(); // releases before 0.5 have none
        return tl::unexpected(path.error());
    }
    HR_TRY(const auto text, read_file(*path, 4096));
    auto digest = parse_digest(text);
    if (!digest)
        return fail(ErrorCode::corrupt_data,
                    fmt::format("{}/{}", directory, digest.error().message), "get the image again");
    return digest;
}

} // namespace

std::string_view to_string(Layout layout) noexcept {
    switch (layout) {
    case Layout::a:
        return "A";
    case Layout::b:
        return "B";
    case Layout::c:
        return "C";
    }
    return "?";
}

std::string_view to_string(Guest guest) noexcept {
    return guest == Guest::host_runner ? "host-runner" : "dstack";
}

std::string to_string(const Version& version) {
    return fmt::format("{}.{}.{}", version.major, version.minor, version.patch);
}

Result<Image> load_image(const std::string& directory) {
    Image image;
    HR_TRY(image.directory, find_directory(directory));
    image.name = base_name(image.directory);
    HR_TRY(const auto metadata, read_metadata(image.directory));
    image.guest = metadata.guest;
    HR_TRY(image.version, find_version(metadata, image));
    HR_TRY(image.layout, find_layout(image));
    HR_CHECK(check_rootfs(metadata, image));

    HR_TRY(image.kernel, find_image_file(image.directory, metadata.kernel));
    HR_TRY(image.initrd, find_image_file(image.directory, metadata.initrd));
    if (metadata.bios) {
        HR_TRY(image.firmware, find_image_file(image.directory, *metadata.bios));
    }
    if (metadata.rootfs) {
        HR_TRY(image.rootfs, find_image_file(image.directory, *metadata.rootfs));
    }
    if (metadata.hda) {
        HR_TRY(image.disk_backing, find_image_file(image.directory, *metadata.hda));
    }
    HR_TRY(image.os_image_hash, read_digest(image.directory));

    image.command_line = metadata.cmdline;
    bind_rootfs(metadata, image);
    image.shared_read_only = metadata.shared_ro;
    // dstack reads the same field as "this image reports its boot" (vmm/src/app/image.rs).
    image.reports_progress = metadata.shared_ro || metadata.guest == Guest::host_runner;
    image.is_dev = metadata.is_dev;
    return image;
}

} // namespace host_runner::image

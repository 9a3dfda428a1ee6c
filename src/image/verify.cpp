// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cerrno>
#include <set>

#include <sys/stat.h>

#include <fmt/format.h>

#include "host_runner/base/files.hpp"
#include "host_runner/base/log.hpp"
#include "host_runner/crypto/digest.hpp"
#include "host_runner/image/image.hpp"
#include "host_runner/image/metadata.hpp"
#include "host_runner/image/verity.hpp"
#include "image_files.hpp"

namespace host_runner::image {

namespace {

/// Errors that say something about the image become failed rows; the others end the check.
bool is_about_image(const Error& error) {
    return error.code == ErrorCode::not_found || error.code == ErrorCode::corrupt_data;
}

Check failed(std::string name, std::string detail) {
    return {std::move(name), false, std::move(detail)};
}

Check passed(std::string name, std::string detail) {
    return {std::move(name), true, std::move(detail)};
}

/// dstack up to 0.4 sums rootfs.cpio, which its releases may leave out: rootfs.iso holds it, and
/// the guest checks its hash (meta-dstack mkimage.sh, DSTACK_TAR_EXCLUDE_ROOTFS_CPIO).
bool may_be_absent(const Image& image, const std::string& name) {
    return image.layout == Layout::a && name == "rootfs.cpio";
}

Result<Check> check_sum(const Image& image, const FileSum& sum) {
    const auto name = "sha256 " + sum.name;
    const auto path = find_image_file(image.directory, sum.name);
    if (!path) {
        if (path.error().code == ErrorCode::not_found && may_be_absent(image, sum.name))
            return passed(name, "not part of the release; rootfs.iso holds it");
        if (is_about_image(path.error()))
            return failed(name, path.error().message);
        return tl::unexpected(path.error());
    }
    HR_TRY(const auto digest, crypto::sha256_file(*path));
    const auto found = crypto::to_hex(digest);
    if (found == sum.sha256)
        return passed(name, found);
    return failed(name, fmt::format("found {}, sha256sum.txt says {}", found, sum.sha256));
}

struct Sums {
    std::string text;
    std::vector<FileSum> entries;
};

Result<Sums> read_sums(const Image& image) {
    HR_TRY(const auto path, find_image_file(image.directory, sums_name));
    Sums sums;
    HR_TRY(sums.text, read_file(path, max_sums_bytes));
    HR_TRY(sums.entries, parse_sha256sums(sums.text));
    return sums;
}

/// What decides about the guest's first code must be bound by os_image_hash. The root file system
/// is bound by its hash in the command line or, up to 0.4, in metadata.json.
std::vector<std::string> files_to_bind(const Image& image) {
    std::vector<std::string> paths{image.directory + "/" + std::string(metadata_name), image.kernel,
                                   image.initrd};
    if (image.firmware)
        paths.push_back(*image.firmware);
    return paths;
}

Check check_coverage(const Image& image, const std::vector<FileSum>& sums) {
    const std::string name = "sha256sum.txt complete";
    std::set<std::string> listed;
    for (const auto& sum : sums)
        if (const auto path = find_image_file(image.directory, sum.name))
            listed.insert(*path);
    for (const auto& path : files_to_bind(image)) {
        const auto real = canonical_path(path);
        if (!real || !listed.contains(*real))
            return failed(name, fmt::format("it does not list {}", base_name(path)));
    }
    return passed(name, fmt::format("{} files, among them kernel, initrd, firmware and "
                                    "metadata.json",
                                    sums.size()));
}

Check check_digest(const Image& image, const std::string& sums_text) {
    const std::string name(digest_name);
    const auto found = crypto::sha256_hex(sums_text);
    if (image.os_image_hash.empty())
        return image.layout == Layout::a
                   ? passed(name, "none: dstack has it from 0.5 on")
                   : failed(name,
                            fmt::format("it is missing; the digest of sha256sum.txt is {}", found));
    if (found == image.os_image_hash)
        return passed(name, found);
    return failed(name, fmt::format("it says {}, but the digest of sha256sum.txt is {}",
                                    image.os_image_hash, found));
}

Result<void> check_sums(const Image& image, std::vector<Check>& checks) {
    const auto sums = read_sums(image);
    if (!sums) {
        if (!is_about_image(sums.error()))
            return tl::unexpected(sums.error());
        checks.push_back(failed(std::string(sums_name), sums.error().message));
        return {};
    }
    for (const auto& sum : sums->entries) {
        HR_TRY(auto check, check_sum(image, sum));
        checks.push_back(std::move(check));
    }
    checks.push_back(check_coverage(image, sums->entries));
    checks.push_back(check_digest(image, sums->text));
    return {};
}

Check check_rootfs_hash(const RootfsBinding& binding) {
    const std::string name = "rootfs hash";
    if (binding.hashes.empty())
        return failed(name, "the kernel command line has no dstack.rootfs_hash=, so that nothing "
                            "binds the root file system");
    if (binding.hashes.size() > 1)
        return failed(name, fmt::format("the kernel command line has dstack.rootfs_hash= {} times",
                                        binding.hashes.size()));
    const auto& hash = binding.hashes.front();
    return is_sha256_hex(hash)
               ? passed(name, hash)
               : failed(name, fmt::format("dstack.rootfs_hash={} is not 64 hex digits", hash));
}

Result<Check> check_rootfs_size(const Image& image, const RootfsBinding& binding) {
    const std::string name = "rootfs size";
    if (binding.sizes.size() != 1)
        return failed(name, fmt::format("the kernel command line has dstack.rootfs_size= {} times, "
                                        "not once",
                                        binding.sizes.size()));
    if (!image.rootfs_size || *image.rootfs_size == 0 ||
        *image.rootfs_size % verity_block_bytes != 0)
        return failed(name, fmt::format("dstack.rootfs_size={} is not a multiple of {} bytes",
                                        binding.sizes.front(), verity_block_bytes));
    struct stat status {};
    if (::stat(image.rootfs->c_str(), &status) != 0)
        return fail_errno(fmt::format("Cannot look at {}", *image.rootfs), errno);
    HR_TRY(const auto partitioned, is_partitioned(*image.rootfs));
    const auto start = partitioned ? rootfs_partition_offset : 0;
    const auto file_size = static_cast<std::uint64_t>(status.st_size);
    if (file_size < start || *image.rootfs_size > file_size - start)
        return failed(name, fmt::format("dstack.rootfs_size={}, but {} has only {} bytes",
                                        *image.rootfs_size, base_name(*image.rootfs), file_size));
    return passed(name, fmt::format("{} of {} bytes", *image.rootfs_size, file_size));
}

/// Up to 0.4 the guest itself compares the cpio archive in rootfs.iso with `rootfs_hash`; what can
/// be checked here is the iso's own line in sha256sum.txt.
Check check_iso(const Image& image) {
    const std::string name = "rootfs blocks";
    const auto sums = read_sums(image);
    const bool listed =
        sums && std::any_of(sums->entries.begin(), sums->entries.end(), [&](const FileSum& sum) {
            return sum.name == base_name(*image.rootfs);
        });
    return listed ? passed(name, "by its line in sha256sum.txt")
                  : failed(name, fmt::format("sha256sum.txt does not list {}; only the guest can "
                                             "check it",
                                             base_name(*image.rootfs)));
}

Result<void> check_rootfs(const Image& image, VerifyDepth depth, std::vector<Check>& checks) {
    if (image.layout == Layout::a) {
        if (depth == VerifyDepth::full)
            checks.push_back(check_iso(image));
        return {};
    }
    if (!image.rootfs) {
        checks.push_back(passed("rootfs hash", "the image has no root file system"));
        return {};
    }
    const auto binding = find_rootfs_binding(image.command_line);
    checks.push_back(check_rootfs_hash(binding));
    HR_TRY(auto size_check, check_rootfs_size(image, binding));
    checks.push_back(std::move(size_check));
    if (depth == VerifyDepth::full) {
        HR_TRY(auto blocks_check, check_verity(image));
        checks.push_back(std::move(blocks_check));
    }
    return {};
}

using TimePoint = std::chrono::system_clock::time_point;

TimePoint to_time_point(const timespec& time) {
    return TimePoint(std::chrono::duration_cast<TimePoint::duration>(
        std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec)));
}

/// What tells an image that was checked from one that has changed since.
struct Fingerprint {
    std::string text;
    TimePoint last_change; ///< The youngest ctime of its files.
};

Result<Fingerprint> take_fingerprint(const Image& image) {
    std::set<std::string> paths;
    for (auto& path : files_to_bind(image))
        paths.insert(std::move(path));
    if (image.rootfs)
        paths.insert(*image.rootfs);
    for (const auto name : {sums_name, digest_name})
        paths.insert(join_path(image.directory, name));
    if (const auto sums = read_sums(image))
        for (const auto& sum : sums->entries)
            paths.insert(join_path(image.directory, sum.name));

    // The first line changes with the meaning of the checks.
    Fingerprint fingerprint{fmt::format("host_runner image check 1\n{}\n", image.directory), {}};
    for (const auto& path : paths) {
        struct stat status {};
        if (::stat(path.c_str(), &status) != 0) {
            if (errno != ENOENT)
                return fail_errno(fmt::format("Cannot look at {}", path), errno);
            fingerprint.text += fmt::format("{} absent\n", path);
            continue;
        }
        const auto nanoseconds = [](const timespec& time) {
            return fmt::format("{}.{:09}", time.tv_sec, time.tv_nsec);
        };
        fingerprint.text +=
            fmt::format("{} {}:{} {} {} {}\n", path, status.st_dev, status.st_ino, status.st_size,
                        nanoseconds(status.st_mtim), nanoseconds(status.st_ctim));
        fingerprint.last_change = std::max(fingerprint.last_change, to_time_point(status.st_ctim));
    }
    return fingerprint;
}

constexpr std::size_t max_fingerprint_bytes = 4 << 20;

} // namespace

Result<std::vector<Check>> verify_image(const Image& image, VerifyDepth depth) {
    std::vector<Check> checks;
    HR_CHECK(check_sums(image, checks));
    HR_CHECK(check_rootfs(image, depth, checks));
    return checks;
}

Result<void> require_verified(const Image& image, const std::string& cache_directory) {
    return require_verified(image, cache_directory, std::chrono::system_clock::now());
}

Result<void> require_verified(const Image& image, const std::string& cache_directory,
                              std::chrono::system_clock::time_point now) {
    // Taken before the files are read: a change in between makes it differ from the next one.
    HR_TRY(const auto fingerprint, take_fingerprint(image));
    const auto cache_path =
        fmt::format("{}/image-{}", cache_directory, crypto::sha256_hex(image.directory));
    if (!cache_directory.empty())
        if (const auto known = read_file(cache_path, max_fingerprint_bytes);
            known && *known == fingerprint.text)
            return {};

    HR_TRY(const auto checks, verify_image(image, VerifyDepth::launch));
    for (const auto& check : checks)
        if (!check.passed)
            return fail(
                ErrorCode::corrupt_data,
                fmt::format("Image {} does not pass the check '{}': {}", image.directory,
                            check.name, check.detail),
                fmt::format("get the image again; `host_runner image verify {}` shows every "
                            "check",
                            image.directory));

    if (cache_directory.empty() || now - fingerprint.last_change < std::chrono::seconds(1))
        return {};
    auto written = make_directories(cache_directory);
    if (written)
        written = write_file_atomic(cache_path, fingerprint.text);
    if (!written)
        log::debug("The image check cannot be remembered: {}", written.error().describe());
    return {};
}

} // namespace host_runner::image

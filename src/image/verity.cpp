// SPDX-License-Identifier: Apache-2.0
#include "host_runner/image/verity.hpp"

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <string_view>

#include <fcntl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include "host_runner/base/process.hpp"
#include "host_runner/base/unique_fd.hpp"
#include "host_runner/image/metadata.hpp"

namespace host_runner::image {

namespace {

constexpr std::string_view check_name = "rootfs dm-verity";

Result<UniqueFd> open_to_read(const std::string& path) {
    UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd)
        return fail_errno(fmt::format("Cannot open {}", path), errno);
    return fd;
}

/// veritysetup cannot skip the start of its data: the partition is copied to a file that has no
/// name, so that nothing is left whatever happens.
Result<UniqueFd> copy_partition(const std::string& path) {
    HR_TRY(const auto source, open_to_read(path));
    const char* folder = std::getenv("TMPDIR"); // NOLINT(concurrency-mt-unsafe): never set by us
    std::string copy_path = fmt::format("{}/host-runner-rootfs-XXXXXX",
                                        folder != nullptr && *folder != '\0' ? folder : "/tmp");
    UniqueFd copy(::mkostemp(copy_path.data(), O_CLOEXEC));
    if (!copy)
        return fail_errno(fmt::format("Cannot make a temporary file {}", copy_path), errno);
    ::unlink(copy_path.c_str());
    off_t offset = static_cast<off_t>(rootfs_partition_offset);
    for (;;) {
        constexpr std::size_t at_once = 16U << 20;
        const auto copied = ::sendfile(copy.get(), source.get(), &offset, at_once);
        if (copied == 0)
            return copy;
        if (copied < 0 && errno != EINTR)
            return fail_errno(fmt::format("Cannot copy the partition of {} to {}", path, copy_path),
                              errno, "set TMPDIR to a folder with enough room");
    }
}

std::string last_line(std::string_view text) {
    while (text.ends_with('\n'))
        text.remove_suffix(1);
    const auto start = text.rfind('\n');
    return std::string(start == std::string_view::npos ? text : text.substr(start + 1));
}

std::string find_program() {
    for (const char* path : {"/usr/sbin/veritysetup", "/sbin/veritysetup"}) // not in a user's PATH
        if (::access(path, X_OK) == 0)
            return path;
    return "veritysetup";
}

} // namespace

Result<bool> is_partitioned(const std::string& path) {
    HR_TRY(const auto fd, open_to_read(path));
    // UEFI specification 2.10, 5.3.2: the header stands in the second block, its signature first.
    constexpr std::string_view signature = "EFI PART";
    std::array<char, signature.size()> found{};
    const auto count = ::pread(fd.get(), found.data(), found.size(), 512);
    if (count < 0)
        return fail_errno(fmt::format("Cannot read {}", path), errno);
    return std::string_view(found.data(), static_cast<std::size_t>(count)) == signature;
}

Result<Check> check_verity(const Image& image, const std::string& program) {
    Check check{std::string(check_name), false, {}};
    if (!image.rootfs) {
        check.passed = true;
        check.detail = "the image has no root file system";
        return check;
    }
    if (!image.rootfs_size || !is_sha256_hex(image.rootfs_hash)) {
        check.detail = "the kernel command line gives no valid root hash and size";
        return check;
    }
    HR_TRY(const auto partitioned, is_partitioned(*image.rootfs));
    ProcessSpec spec;
    std::string path = *image.rootfs;
    UniqueFd copy;
    if (partitioned) {
        constexpr int child_fd = 3;
        HR_TRY(copy, copy_partition(*image.rootfs));
        spec.pass_fds.emplace(child_fd, copy.get());
        path = fmt::format("/proc/self/fd/{}", child_fd);
    }
    spec.argv = {
        program.empty() ? find_program() : program,         "verify", path, path, image.rootfs_hash,
        fmt::format("--hash-offset={}", *image.rootfs_size)};
    ForkExecLauncher launcher;
    const auto output = run_captured(launcher, std::move(spec), std::chrono::hours(1));
    if (!output) {
        if (output.error().code != ErrorCode::not_found)
            return tl::unexpected(output.error());
        return fail(ErrorCode::unsupported,
                    "The root file system's blocks cannot be checked: there is no veritysetup",
                    "install it: apt-get install cryptsetup-bin");
    }
    check.passed = output->status.exited && output->status.code == 0;
    check.detail = check.passed ? fmt::format("every block of {} bytes agrees with {}",
                                              *image.rootfs_size, image.rootfs_hash)
                                : fmt::format("veritysetup ended with {}: {}",
                                              output->status.describe(), last_line(output->err));
    return check;
}

} // namespace host_runner::image

// SPDX-License-Identifier: Apache-2.0
#include "host_runner/image/import.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <memory>
#include <utility>

#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include "host_runner/base/files.hpp"
#include "host_runner/base/unique_fd.hpp"
#include "host_runner/crypto/digest.hpp"
#include "host_runner/image/metadata.hpp"
#include "image_files.hpp"
#include "unpack_module.hpp"

namespace host_runner::image {

namespace {

constexpr std::uint32_t max_entries = 256;

/// Hex digits of a digest in either case, as lower case.
Result<std::string> normal_sha256(const std::string& text) {
    if (!is_sha256_hex(text))
        return fail(
            ErrorCode::invalid_argument,
            fmt::format("--sha256 {} is not a SHA-256 of 64 hex digits", text.substr(0, 100)),
            "take it from the release page, not from the archive you have");
    HR_TRY(const auto bytes, crypto::from_hex(text));
    return crypto::to_hex(bytes);
}

bool is_url(const std::string& source) {
    return source.starts_with("https://") || source.starts_with("http://");
}

/// "https://host/a/dstack-0.5.3.tar.gz?x=y" -> "dstack-0.5.3"
std::string name_without_ending(std::string source) {
    if (is_url(source))
        source.resize(std::min(source.find_first_of("?#"), source.size()));
    auto name = base_name(source);
    for (const std::string_view ending :
         {".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.zst", ".tzst"})
        if (name.ends_with(ending)) {
            name.resize(name.size() - ending.size());
            break;
        }
    return name;
}

/// dstack's rule for image names (vmm/src/app/image.rs); a leading '.' would hide the directory and
/// a leading '-' would read as an option.
Result<void> check_image_name(const std::string& name) {
    const auto is_allowed = [](char c) {
        return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
               c == '_' || c == '.' || c == '-';
    };
    if (!name.empty() && name.size() <= 64 && name.front() != '.' && name.front() != '-' &&
        name.find("..") == std::string::npos && std::all_of(name.begin(), name.end(), is_allowed))
        return {};
    return fail(ErrorCode::invalid_argument,
                fmt::format("\"{}\" cannot be the name of an image", name.substr(0, 100)),
                "it may have 1 to 64 characters of A-Z a-z 0-9 _ . - and no '..': rename the "
                "archive");
}

/// The hidden folder in which an import works, locked against a second import of the same archive
/// and removed at the end.
class Staging {
public:
    [[nodiscard]] static Result<Staging> open(const std::string& directory,
                                              const std::string& sha256) {
        Staging staging;
        staging.path_ = fmt::format("{}/.import-{}", directory, sha256.substr(0, 16));
        HR_CHECK(make_directories(staging.path_));
        auto lock = try_lock_file(staging.lock_path());
        if (!lock) {
            staging.path_.clear();
            if (lock.error().code != ErrorCode::already_exists)
                return tl::unexpected(std::move(lock).error());
            return fail(ErrorCode::already_exists,
                        fmt::format("This archive is being imported into {} right now", directory),
                        "wait for the other import to end");
        }
        staging.lock_ = std::move(*lock);
        for (const auto* const part : {"archive", "unpacked", "image"})
            HR_CHECK(staging.remove(part));
        return staging;
    }
    Staging(Staging&& other) noexcept
        : path_(std::exchange(other.path_, {})), lock_(std::move(other.lock_)) {}
    Staging& operator=(Staging&&) = delete;
    Staging(const Staging&) = delete;
    Staging& operator=(const Staging&) = delete;
    ~Staging() {
        if (!path_.empty())
            static_cast<void>(remove_tree(path_, "lock")); // what stays, the next import removes
    }

    [[nodiscard]] std::string operator/(std::string_view name) const {
        return join_path(path_, name);
    }
    [[nodiscard]] Result<std::string> make_folder(std::string_view name) const {
        auto folder = *this / name;
        HR_CHECK(make_directories(folder, 0755));
        return folder;
    }

private:
    Staging() = default;
    [[nodiscard]] std::string lock_path() const {
        return join_path(path_, "lock");
    }
    /// What an interrupted import left.
    [[nodiscard]] Result<void> remove(std::string_view name) const {
        const auto path = *this / name;
        struct stat status {};
        if (::lstat(path.c_str(), &status) != 0)
            return {};
        if (!S_ISDIR(status.st_mode))
            return remove_file(path);
        const auto marker = join_path(path, "lock");
        HR_CHECK(write_file_atomic(marker, {}));
        return remove_tree(path, "lock");
    }

    std::string path_;
    UniqueFd lock_;
};

Result<UniqueFd> open_archive(const std::string& path) {
    UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd)
        return fail_errno(fmt::format("Cannot open archive {}", path), errno);
    struct stat status {};
    if (::fstat(fd.get(), &status) != 0)
        return fail_errno(fmt::format("Cannot look at archive {}", path), errno);
    if (!S_ISREG(status.st_mode))
        return fail(ErrorCode::invalid_argument, fmt::format("{} is not an archive file", path));
    return fd;
}

std::uint64_t file_size(int fd) {
    struct stat status {};
    return ::fstat(fd, &status) == 0 ? static_cast<std::uint64_t>(status.st_size) : 0;
}

void report(const ImportProgress& progress, ImportStep step, std::uint64_t done,
            std::uint64_t total) {
    if (progress)
        progress(step, done, total);
}

Result<void> check_archive(int fd, const ImportRequest& request, const std::string& expected,
                           const ImportProgress& progress) {
    const auto total = file_size(fd);
    crypto::Sha256 hash;
    std::uint64_t done = 0;
    const auto block = std::make_unique<std::array<char, 1U << 20>>();
    for (;;) {
        report(progress, ImportStep::hash, done, total);
        const auto count = ::read(fd, block->data(), block->size());
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return fail_errno(fmt::format("Cannot read archive {}", request.source), errno);
        if (count == 0)
            break;
        hash.update({block->data(), static_cast<std::size_t>(count)});
        done += static_cast<std::uint64_t>(count);
    }
    const auto found = crypto::to_hex(hash.finish());
    if (found != expected)
        return fail(
            ErrorCode::corrupt_data,
            fmt::format("Archive {} has the SHA-256 {}, not {}", request.source, found, expected),
            "the archive is damaged, of another release, or not what its maker published: "
            "do not use it");
    if (::lseek(fd, 0, SEEK_SET) != 0)
        return fail_errno(fmt::format("Cannot read archive {} again", request.source), errno);
    return {};
}

struct ModuleCloser {
    void operator()(void* module) const noexcept {
        ::dlclose(module);
    }
};
using UniqueModule = std::unique_ptr<void, ModuleCloser>;

/// Beside the program, in the build folder as well as installed: PREFIX/bin/host_runner and
/// PREFIX/lib/host-runner/unpack.so.
Result<UniqueModule> load_unpack_module() {
    HR_TRY(const auto program, canonical_path("/proc/self/exe"));
    const auto path = parent_path(parent_path(program)) + "/lib/host-runner/unpack.so";
    UniqueModule module(::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL));
    if (!module) {
        const char* const cause = ::dlerror();
        return fail(
            ErrorCode::unsupported,
            fmt::format("Archives cannot be unpacked: {}", cause == nullptr ? path.c_str() : cause),
            "install host_runner as a whole and libarchive (libarchive13), or unpack the "
            "archive yourself and check it with `host_runner image verify`");
    }
    return module;
}

Result<void> unpack(int fd, const std::string& folder, const ImportRequest& request,
                    const ImportProgress& progress) {
    HR_TRY(const auto module, load_unpack_module());
    const auto run =
        reinterpret_cast<HostRunnerUnpack>(::dlsym(module.get(), host_runner_unpack_symbol));
    if (run == nullptr)
        return fail(ErrorCode::unsupported,
                    "Archives cannot be unpacked: unpack.so is of another version",
                    "install host_runner as a whole");
    const std::pair context{&progress, file_size(fd)};
    HostRunnerUnpackRequest call{};
    call.archive_fd = fd;
    call.folder = folder.c_str();
    call.max_bytes = max_unpacked_bytes;
    call.max_entries = max_entries;
    call.context = const_cast<void*>(static_cast<const void*>(&context));
    call.progress = [](void* pointer, std::uint64_t done) {
        const auto& [callback, total] = *static_cast<decltype(&context)>(pointer);
        report(*callback, ImportStep::unpack, std::min(done, total), total);
    };
    switch (run(&call)) {
    case host_runner_unpack_done:
        return {};
    case host_runner_unpack_refused:
        return fail(ErrorCode::corrupt_data,
                    fmt::format("Archive {} is not unpacked: {}", request.source,
                                static_cast<const char*>(call.message)),
                    "image archives hold plain files, all in one folder");
    default:
        return fail_errno(fmt::format("Cannot unpack archive {} ({})", request.source,
                                      static_cast<const char*>(call.message)),
                          call.error_number);
    }
}

/// Gives what was unpacked its name, inside the staging folder still.
Result<std::string> name_image(const Staging& staging, const std::string& unpacked,
                               const ImportRequest& request) {
    auto source = unpacked;
    auto name = name_without_ending(request.source);
    if (!path_exists(join_path(unpacked, metadata_name))) {
        HR_TRY(const auto names, list_directory(unpacked));
        if (names.size() != 1)
            return fail(ErrorCode::corrupt_data,
                        fmt::format("Archive {} holds no metadata.json", request.source),
                        "is it the release of an image?");
        name = names.front();
        source = join_path(unpacked, name);
    }
    HR_CHECK(check_image_name(name));
    HR_TRY(const auto parent, staging.make_folder("image"));
    auto target = join_path(parent, name);
    if (::rename(source.c_str(), target.c_str()) != 0)
        return fail_errno(fmt::format("Cannot rename {} to {}", source, target), errno);
    return target;
}

Result<void> check_image(const std::string& path, const ImportRequest& request,
                         const ImportProgress& progress) {
    report(progress, ImportStep::verify, 0, 0);
    const auto with_source = [&](Error error) {
        error.message =
            fmt::format("Archive {} holds no usable image: {}", request.source, error.message);
        return tl::unexpected(std::move(error));
    };
    const auto image = load_image(path);
    if (!image)
        return with_source(image.error());
    if (const auto verified = require_verified(*image, {}); !verified)
        return with_source(verified.error());
    return {};
}

/// The image on disk before its name is: after a power failure it is there as a whole or not.
Result<void> put_in_place(const std::string& staged, const std::string& directory,
                          const std::string& target) {
    const UniqueFd folder(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!folder || ::syncfs(folder.get()) != 0)
        return fail_errno(fmt::format("Cannot write {} to disk", directory), errno);
    if (::renameat2(AT_FDCWD, staged.c_str(), AT_FDCWD, target.c_str(), RENAME_NOREPLACE) != 0)
        return fail_errno(fmt::format("Cannot make {}", target), errno);
    if (::fsync(folder.get()) != 0)
        return fail_errno(fmt::format("Cannot write {} to disk", directory), errno);
    return {};
}

} // namespace

std::string_view to_string(ImportStep step) noexcept {
    switch (step) {
    case ImportStep::download:
        return "download";
    case ImportStep::hash:
        return "hash";
    case ImportStep::unpack:
        return "unpack";
    case ImportStep::verify:
        return "verify";
    }
    return "?";
}

Result<Image> import_image(const ImportRequest& request, const Downloader& download,
                           const ImportProgress& progress) {
    HR_TRY(const auto sha256, normal_sha256(request.sha256));
    HR_TRY(const auto directory, canonical_path(request.directory));
    HR_TRY(const auto staging, Staging::open(directory, sha256));

    auto archive_path = request.source;
    if (is_url(request.source)) {
        archive_path = staging / "archive";
        HR_CHECK(
            download(request.source, archive_path, [&](std::uint64_t done, std::uint64_t total) {
                report(progress, ImportStep::download, done, total);
            }));
    }
    HR_TRY(const auto archive, open_archive(archive_path));
    HR_CHECK(check_archive(archive.get(), request, sha256, progress));
    HR_TRY(const auto unpacked, staging.make_folder("unpacked"));
    HR_CHECK(unpack(archive.get(), unpacked, request, progress));
    HR_TRY(const auto staged, name_image(staging, unpacked, request));
    HR_CHECK(check_image(staged, request, progress));

    const auto target = join_path(directory, base_name(staged));
    if (path_exists(target))
        return fail(ErrorCode::already_exists, fmt::format("{} exists already", target),
                    "remove or rename it first");
    HR_CHECK(put_in_place(staged, directory, target));
    return load_image(target);
}

} // namespace host_runner::image

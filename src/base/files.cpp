// SPDX-License-Identifier: Apache-2.0
#include "host_runner/base/files.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <memory>

#include <dirent.h>
#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

namespace host_runner {

namespace {

struct DirCloser {
    void operator()(DIR* dir) const noexcept {
        ::closedir(dir);
    }
};
using UniqueDir = std::unique_ptr<DIR, DirCloser>;

Result<std::vector<std::string>> names_in(UniqueFd fd, const std::string& path) {
    UniqueDir dir(::fdopendir(fd.get()));
    if (!dir)
        return fail_errno(fmt::format("Cannot read folder {}", path), errno);
    static_cast<void>(fd.release()); // the DIR owns it now
    std::vector<std::string> names;
    for (;;) {
        errno = 0;
        const dirent* entry = ::readdir(dir.get()); // NOLINT(concurrency-mt-unsafe): own DIR
        if (entry == nullptr)
            break;
        const std::string_view name(static_cast<const char*>(entry->d_name));
        if (name != "." && name != "..")
            names.emplace_back(name);
    }
    if (errno != 0)
        return fail_errno(fmt::format("Cannot read folder {}", path), errno);
    std::sort(names.begin(), names.end());
    return names;
}

/// Removes what is in the folder `fd`, except the name `keep`.
Result<void> empty_directory(int fd, const std::string& path, std::string_view keep) {
    UniqueFd copy(::openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!copy)
        return fail_errno(fmt::format("Cannot open folder {}", path), errno);
    HR_TRY(const auto names, names_in(std::move(copy), path));
    for (const auto& name : names) {
        if (name == keep)
            continue;
        if (::unlinkat(fd, name.c_str(), 0) == 0 || errno == ENOENT)
            continue;
        if (errno != EISDIR && errno != EPERM)
            return fail_errno(fmt::format("Cannot remove {}/{}", path, name), errno);
        const std::string child_path = join_path(path, name);
        UniqueFd child(::openat(fd, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
        if (!child)
            return fail_errno(fmt::format("Cannot open folder {}", child_path), errno);
        HR_CHECK(empty_directory(child.get(), child_path, {}));
        if (::unlinkat(fd, name.c_str(), AT_REMOVEDIR) != 0)
            return fail_errno(fmt::format("Cannot remove folder {}", child_path), errno);
    }
    return {};
}

/// A name beside `path` that nobody else picks.
Result<std::string> temporary_name(const std::string& path) {
    std::array<unsigned char, 8> noise{};
    if (::getrandom(noise.data(), noise.size(), 0) != static_cast<ssize_t>(noise.size()))
        return fail_errno("Cannot get random bytes", errno);
    std::string suffix;
    for (const unsigned char byte : noise)
        suffix += fmt::format("{:02x}", byte);
    return fmt::format("{}/.{}.{}.tmp", parent_path(path), base_name(path), suffix);
}

Result<void> sync_directory(const std::string& path) {
    UniqueFd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!fd || ::fsync(fd.get()) != 0)
        return fail_errno(fmt::format("Cannot sync folder {}", path), errno);
    return {};
}

Result<UniqueFd> open_lock_file(const std::string& path, int flags) {
    UniqueFd fd(::open(path.c_str(), flags | O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!fd)
        return fail_errno(fmt::format("Cannot open lock file {}", path), errno);
    return fd;
}

struct flock whole_file_lock(short type) noexcept {
    struct flock lock {};
    lock.l_type = type;
    lock.l_whence = SEEK_SET;
    return lock;
}

} // namespace

Result<std::string> read_all(int fd, std::size_t max_bytes) {
    std::string bytes;
    std::array<char, 65536> buffer{};
    for (;;) {
        const ssize_t count = ::read(fd, buffer.data(), buffer.size());
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return fail_errno("Cannot read", errno);
        if (count == 0)
            return bytes;
        if (bytes.size() + static_cast<std::size_t>(count) > max_bytes)
            return fail(ErrorCode::corrupt_data, fmt::format("More than {} bytes", max_bytes));
        bytes.append(buffer.data(), static_cast<std::size_t>(count));
    }
}

Result<std::string> read_file(const std::string& path, std::size_t max_bytes) {
    UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd)
        return fail_errno(fmt::format("Cannot open {}", path), errno);
    return read_all(fd.get(), max_bytes).map_error([&](Error error) {
        error.message = fmt::format("Cannot read {}: {}", path, error.message);
        return error;
    });
}

Result<void> write_all(int fd, std::string_view bytes) {
    while (!bytes.empty()) {
        const ssize_t count = ::write(fd, bytes.data(), bytes.size());
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return fail_errno("Cannot write", errno);
        bytes.remove_prefix(static_cast<std::size_t>(count));
    }
    return {};
}

Result<void> write_file_atomic(const std::string& path, std::string_view bytes, mode_t mode) {
    HR_TRY(const auto temporary, temporary_name(path));
    const auto write_it = [&]() -> Result<void> {
        UniqueFd fd(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode));
        if (!fd)
            return fail_errno(fmt::format("Cannot create {}", temporary), errno);
        if (::fchmod(fd.get(), mode) != 0)
            return fail_errno(fmt::format("Cannot set the mode of {}", temporary), errno);
        HR_CHECK(write_all(fd.get(), bytes));
        if (::fsync(fd.get()) != 0)
            return fail_errno("Cannot sync", errno);
        if (::rename(temporary.c_str(), path.c_str()) != 0)
            return fail_errno("Cannot rename into place", errno);
        return sync_directory(parent_path(path));
    };
    return write_it().map_error([&](Error error) {
        ::unlink(temporary.c_str());
        error.message = fmt::format("Cannot write {}: {}", path, error.message);
        return error;
    });
}

Result<void> make_directories(const std::string& path, mode_t mode) {
    struct stat status {};
    if (::stat(path.c_str(), &status) == 0) {
        if (S_ISDIR(status.st_mode))
            return {};
        return fail(ErrorCode::already_exists, fmt::format("{} is there and is no folder", path));
    }
    const std::string parent = parent_path(path);
    if (parent != path)
        HR_CHECK(make_directories(parent, mode));
    if (::mkdir(path.c_str(), mode) == 0) {
        if (::chmod(path.c_str(), mode) != 0) // mkdir applied the umask
            return fail_errno(fmt::format("Cannot set the mode of folder {}", path), errno);
        return {};
    }
    if (errno == EEXIST)
        return make_directories(path, mode);
    return fail_errno(fmt::format("Cannot make folder {}", path), errno);
}

Result<std::vector<std::string>> list_directory(const std::string& path) {
    UniqueFd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!fd)
        return fail_errno(fmt::format("Cannot open folder {}", path), errno);
    return names_in(std::move(fd), path);
}

Result<void> remove_tree(const std::string& path, const std::string& marker) {
    UniqueFd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!fd)
        return fail_errno(fmt::format("Cannot open folder {}", path), errno);
    struct stat status {};
    if (::fstatat(fd.get(), marker.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0)
        return fail(ErrorCode::wrong_state,
                    fmt::format("Not removing {}: it has no {}, so it is not ours", path, marker));
    HR_CHECK(empty_directory(fd.get(), path, marker));
    if (::unlinkat(fd.get(), marker.c_str(), 0) != 0)
        return fail_errno(fmt::format("Cannot remove {}/{}", path, marker), errno);
    if (::rmdir(path.c_str()) != 0)
        return fail_errno(fmt::format("Cannot remove folder {}", path), errno);
    return {};
}

Result<void> remove_file(const std::string& path) {
    if (::unlink(path.c_str()) != 0 && errno != ENOENT)
        return fail_errno(fmt::format("Cannot remove {}", path), errno);
    return {};
}

Result<UniqueFd> try_lock_file(const std::string& path) {
    HR_TRY(auto fd, open_lock_file(path, O_CREAT));
    auto lock = whole_file_lock(F_WRLCK);
    if (::fcntl(fd.get(), F_OFD_SETLK, &lock) == 0)
        return fd;
    if (errno == EAGAIN || errno == EACCES)
        return fail(ErrorCode::already_exists,
                    fmt::format("{} is locked by another process", path));
    return fail_errno(fmt::format("Cannot lock {}", path), errno);
}

Result<bool> is_file_locked(const std::string& path) {
    auto fd = open_lock_file(path, 0);
    if (!fd) {
        if (fd.error().code == ErrorCode::not_found)
            return false;
        return tl::unexpected<Error>(std::move(fd).error());
    }
    auto lock = whole_file_lock(F_WRLCK);
    if (::fcntl(fd->get(), F_OFD_GETLK, &lock) != 0)
        return fail_errno(fmt::format("Cannot ask for the lock of {}", path), errno);
    return lock.l_type != F_UNLCK;
}

bool path_exists(const std::string& path) noexcept {
    return ::access(path.c_str(), F_OK) == 0;
}

Result<std::string> canonical_path(const std::string& path) {
    const std::unique_ptr<char, decltype(&std::free)> real(::realpath(path.c_str(), nullptr),
                                                           &std::free);
    if (!real)
        return fail_errno(fmt::format("Cannot resolve {}", path), errno);
    return std::string(real.get());
}

std::string join_path(std::string_view folder, std::string_view name) {
    if (folder.empty() || (!name.empty() && name.front() == '/'))
        return std::string(name);
    std::string path(folder);
    if (path.back() != '/')
        path += '/';
    path += name;
    return path;
}

std::string parent_path(std::string_view path) {
    while (path.size() > 1 && path.back() == '/')
        path.remove_suffix(1);
    const auto slash = path.rfind('/');
    if (slash == std::string_view::npos)
        return ".";
    return std::string(path.substr(0, std::max<std::size_t>(slash, 1)));
}

std::string base_name(std::string_view path) {
    while (path.size() > 1 && path.back() == '/')
        path.remove_suffix(1);
    const auto slash = path.rfind('/');
    return std::string(
        slash == std::string_view::npos || path.size() == 1 ? path : path.substr(slash + 1));
}

} // namespace host_runner

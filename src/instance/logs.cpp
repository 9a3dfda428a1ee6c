// SPDX-License-Identifier: Apache-2.0
#include "host_runner/instance/logs.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <optional>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "host_runner/base/files.hpp"

namespace host_runner::instance {

namespace {

/// For appending, and a regular file: nothing else may be named like a log of ours.
/// O_NONBLOCK because opening a FIFO that nobody reads would wait for ever.
Result<UniqueFd> open_log(const std::string& path, mode_t mode) {
    UniqueFd fd(::open(path.c_str(),
                       O_RDWR | O_CREAT | O_APPEND | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC,
                       mode));
    if (!fd)
        return fail_errno(fmt::format("Cannot open log {}", path), errno);
    struct stat status {};
    if (::fstat(fd.get(), &status) != 0)
        return fail_errno(fmt::format("Cannot look at log {}", path), errno);
    // A second hard link would let somebody else's file be written through our name.
    if (!S_ISREG(status.st_mode) || status.st_nlink != 1)
        return fail(ErrorCode::wrong_state,
                    fmt::format("{} is not a plain file with one name", path));
    return fd;
}

/// False: another open file holds the lock.
Result<bool> lock_log(int fd, const std::string& path) {
    struct flock lock {};
    lock.l_type = F_WRLCK;
    lock.l_whence = SEEK_SET;
    if (::fcntl(fd, F_OFD_SETLK, &lock) == 0)
        return true;
    if (errno == EAGAIN || errno == EACCES)
        return false;
    return fail_errno(fmt::format("Cannot lock log {}", path), errno);
}

/// Both logs, or nothing when another run holds one.
Result<std::optional<QemuLogs>> open_pair(const std::string& folder, const std::string& infix,
                                          mode_t mode) {
    QemuLogs logs;
    logs.stdout_path = join_path(folder, fmt::format("qemu_stdout{}.log", infix));
    logs.stderr_path = join_path(folder, fmt::format("qemu_stderr{}.log", infix));
    HR_TRY(logs.stdout_fd, open_log(logs.stdout_path, mode));
    HR_TRY(const bool locked, lock_log(logs.stdout_fd.get(), logs.stdout_path));
    if (!locked)
        return std::optional<QemuLogs>();
    HR_TRY(logs.stderr_fd, open_log(logs.stderr_path, mode));
    HR_TRY(const bool locked_too, lock_log(logs.stderr_fd.get(), logs.stderr_path));
    if (!locked_too)
        return std::optional<QemuLogs>();
    return std::optional(std::move(logs));
}

Result<void> replace_link(const std::string& target, const std::string& link) {
    HR_CHECK(remove_file(link));
    if (::symlink(target.c_str(), link.c_str()) != 0)
        return fail_errno(fmt::format("Cannot link {}", link), errno);
    return {};
}

Result<void> remove_link(const std::string& path) {
    struct stat status {};
    if (::lstat(path.c_str(), &status) == 0 && S_ISLNK(status.st_mode))
        return remove_file(path);
    return {};
}

Result<void> copy_to(int from, const std::string& path) {
    UniqueFd to(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (!to)
        return fail_errno(fmt::format("Cannot create {}", path), errno);
    std::array<char, 65536> buffer{};
    for (off_t offset = 0;;) {
        const ssize_t count = ::pread(from, buffer.data(), buffer.size(), offset);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return fail_errno(fmt::format("Cannot copy to {}", path), errno);
        if (count == 0)
            return {};
        HR_CHECK(write_all(to.get(), {buffer.data(), static_cast<std::size_t>(count)}));
        offset += count;
    }
}

} // namespace

Result<bool> rotate_if_large(const std::string& path, const RotationRule& rule) {
    UniqueFd fd(::open(path.c_str(), O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
    if (!fd) {
        if (errno == ENOENT)
            return false;
        return fail_errno(fmt::format("Cannot open log {}", path), errno);
    }
    struct stat status {};
    if (::fstat(fd.get(), &status) != 0)
        return fail_errno(fmt::format("Cannot look at log {}", path), errno);
    if (!S_ISREG(status.st_mode) || static_cast<std::uint64_t>(status.st_size) <= rule.max_bytes)
        return false;

    const auto part = [&](unsigned number) {
        return fmt::format("{}.{}", path, number);
    };
    HR_CHECK(remove_file(part(rule.keep)));
    for (unsigned number = rule.keep; number > 1; --number)
        if (::rename(part(number - 1).c_str(), part(number).c_str()) != 0 && errno != ENOENT)
            return fail_errno(fmt::format("Cannot rename {}", part(number - 1)), errno);
    auto copied = copy_to(fd.get(), part(1));
    if (!copied)
        static_cast<void>(::unlink(part(1).c_str()));
    // Also after a failed copy: the bound on the disk's use goes before the old lines.
    if (::ftruncate(fd.get(), 0) != 0)
        return fail_errno(fmt::format("Cannot truncate log {}", path), errno);
    if (!copied)
        return fail(copied.error().code,
                    fmt::format("Dropped the old lines of {}: {}", path, copied.error().message));
    return true;
}

std::string format_rfc3339(std::int64_t unix_ms) {
    const std::time_t seconds = static_cast<std::time_t>(unix_ms / 1000);
    std::tm parts{};
    ::gmtime_r(&seconds, &parts);
    std::array<char, 32> text{};
    const auto size = std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &parts);
    return {text.data(), size};
}

std::int64_t unix_time_ms() {
    return std::chrono::duration_cast<std::chrono::milliseconds>(
               std::chrono::system_clock::now().time_since_epoch())
        .count();
}

std::string boot_marker(std::int64_t unix_ms, std::string_view id) {
    return fmt::format("===== boot @ {} {} =====\n", format_rfc3339(unix_ms), id);
}

Result<void> append_marker(const std::string& path, std::string_view marker) {
    HR_TRY(const auto fd, open_log(path, 0600));
    return write_all(fd.get(), marker).map_error([&](Error error) {
        error.message = fmt::format("Cannot write to {}: {}", path, error.message);
        return error;
    });
}

Result<QemuLogs> open_qemu_logs(const std::string& folder, const std::string& instance_directory,
                                const std::string& id) {
    // Users read these as files of their own: the umask applies.
    auto logs = open_pair(folder, "", 0666);
    if (logs && !*logs)
        logs = open_pair(folder, "." + id, 0666);
    if (logs && *logs) {
        HR_CHECK(
            replace_link((*logs)->stdout_path, join_path(instance_directory, "qemu_stdout.log")));
        HR_CHECK(
            replace_link((*logs)->stderr_path, join_path(instance_directory, "qemu_stderr.log")));
        return std::move(**logs);
    }
    const std::string reason = logs ? fmt::format("{} is in use", folder) : logs.error().message;
    // Links of an earlier run of the same instance.
    HR_CHECK(remove_link(join_path(instance_directory, "qemu_stdout.log")));
    HR_CHECK(remove_link(join_path(instance_directory, "qemu_stderr.log")));
    HR_TRY(auto own, open_pair(instance_directory, "", 0600));
    if (!own)
        return fail(
            ErrorCode::already_exists,
            fmt::format("QEMU's logs in {} are locked by another process", instance_directory),
            "a QEMU of an earlier run may still be ending: try again");
    own->warnings.push_back(
        fmt::format("QEMU's output goes to {}: {}", instance_directory, reason));
    return std::move(*own);
}

std::uint64_t file_size(const std::string& path) noexcept {
    struct stat status {};
    if (::stat(path.c_str(), &status) != 0)
        return 0;
    return static_cast<std::uint64_t>(status.st_size);
}

std::string read_tail(const std::string& path, std::uint64_t offset, std::size_t max_bytes) {
    const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
    struct stat status {};
    if (!fd || ::fstat(fd.get(), &status) != 0)
        return {};
    const auto size = static_cast<std::uint64_t>(status.st_size);
    if (size < offset)
        offset = 0; // rotated meanwhile
    if (size - offset > max_bytes)
        offset = size - max_bytes;
    std::string text(static_cast<std::size_t>(size - offset), '\0');
    const ssize_t count = ::pread(fd.get(), text.data(), text.size(), static_cast<off_t>(offset));
    text.resize(count < 0 ? 0 : static_cast<std::size_t>(count));
    return text;
}

Result<EventsLog> EventsLog::open(std::string path) {
    HR_CHECK(rotate_if_large(path));
    HR_TRY(auto fd, open_log(path, 0600));
    EventsLog log(std::move(path), std::move(fd));
    log.size_ = file_size(log.path_);
    return log;
}

Result<void> EventsLog::append(const Line& line) {
    nlohmann::ordered_json object = {{"time", format_rfc3339(line.time_ms)},
                                     {"kind", line.kind},
                                     {"text", line.text},
                                     {"elapsed_ms", line.elapsed_ms}};
    if (line.limit_ms > 0)
        object["limit_ms"] = line.limit_ms;
    // `replace`: dump() throws on bytes that are no UTF-8 otherwise.
    std::string text =
        object.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
    text += '\n';
    HR_CHECK(write_all(fd_.get(), text).map_error([&](Error error) {
        error.message = fmt::format("Cannot write to {}: {}", path_, error.message);
        return error;
    }));
    size_ += text.size();
    if (size_ > RotationRule{}.max_bytes) {
        size_ = 0;
        HR_CHECK(rotate_if_large(path_));
    }
    return {};
}

std::string printable(std::string_view text, std::size_t max_bytes) {
    // nlohmann's decoder knows UTF-8: one pass replaces what is none.
    const bool cut = text.size() > max_bytes;
    std::string result(text.substr(0, max_bytes));
    const auto quoted =
        nlohmann::json(result).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    const auto parsed = nlohmann::json::parse(quoted, nullptr, false);
    if (parsed.is_string())
        result = parsed.get<std::string>();
    for (std::size_t i = 0; i < result.size(); ++i) {
        const auto byte = static_cast<unsigned char>(result[i]);
        if (byte == '\n' || byte == '\t')
            result[i] = ' ';
        else if (byte < 0x20 || byte == 0x7f)
            result[i] = '?';
        else if (byte == 0xc2 && i + 1 < result.size() &&
                 static_cast<unsigned char>(result[i + 1]) < 0xa0)
            result.replace(i, 2, "?"); // U+0080 to U+009F: terminals obey them too
    }
    while (!result.empty() && result.back() == ' ')
        result.pop_back();
    if (cut)
        result += "...";
    return result;
}

} // namespace host_runner::instance

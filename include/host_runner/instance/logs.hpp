// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The log files of an instance: QEMU's two in the user's folder, serial.log and events.jsonl in
/// the instance folder. All of them are appended to, marked at each boot and bounded in size.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "host_runner/base/error.hpp"
#include "host_runner/base/unique_fd.hpp"
#include "host_runner/base/units.hpp"

namespace host_runner::instance {

/// A log and its older parts NAME.1 (the newest) to NAME.<keep>. The figures are dstack's
/// (v0.5.11 vmm, serial log rotation).
struct RotationRule {
    std::uint64_t max_bytes = 4 * mib;
    unsigned keep = 3;
};

/// Copies a log above the limit to NAME.1 and truncates it, so that a writer that holds it open
/// with O_APPEND goes on at its new beginning. What is written between the copy's end and the
/// truncation is lost. Only regular files, never through a link; a missing one is fine. With no
/// room for the copy the log is truncated all the same, and the error says so.
/// @return true when it rotated
/// @errors io_error, resource_exhausted
[[nodiscard]] Result<bool> rotate_if_large(const std::string& path, const RotationRule& rule = {});

/// "===== boot @ 2026-11-25T03:30:00Z 0123456789ab =====\n"
[[nodiscard]] std::string boot_marker(std::int64_t unix_ms, std::string_view id);

/// "2026-11-25T03:30:00Z" (RFC 3339, UTC, whole seconds).
[[nodiscard]] std::string format_rfc3339(std::int64_t unix_ms);

/// Milliseconds since 1970.
[[nodiscard]] std::int64_t unix_time_ms();

/// Opens a log for appending, made with 0600 when missing, and writes the marker.
[[nodiscard]] Result<void> append_marker(const std::string& path, std::string_view marker);

struct QemuLogs {
    std::string stdout_path; ///< Absolute.
    std::string stderr_path;
    UniqueFd stdout_fd;
    UniqueFd stderr_fd;
    std::vector<std::string> warnings; ///< E.g. that the folder cannot be written.
};

/// Opens qemu_stdout.log and qemu_stderr.log in `folder` for appending, without following links,
/// and locks them; while another live run holds them, qemu_stdout.<id>.log and
/// qemu_stderr.<id>.log. In a folder where that fails (not writable, a link, no regular file) the
/// instance folder takes them, with a warning. Else the instance folder gets links to them.
/// The locks go with the last copy of the descriptors: ours and QEMU's.
[[nodiscard]] Result<QemuLogs> open_qemu_logs(const std::string& folder,
                                              const std::string& instance_directory,
                                              const std::string& id);

/// At most the last `max_bytes` after `offset`; empty when there is nothing or it cannot be read.
[[nodiscard]] std::string read_tail(const std::string& path, std::uint64_t offset,
                                    std::size_t max_bytes);

/// The size in bytes, 0 when it cannot be asked for.
[[nodiscard]] std::uint64_t file_size(const std::string& path) noexcept;

/// events.jsonl: one JSON object per line {"time","kind","text","elapsed_ms"[,"limit_ms"]}.
class EventsLog {
public:
    /// Opens for appending; rotates first where the last run left it too large.
    [[nodiscard]] static Result<EventsLog> open(std::string path);

    struct Line {
        std::int64_t time_ms = 0;
        std::string_view kind;
        std::string_view text; ///< Any bytes; what is no UTF-8 is replaced.
        std::int64_t elapsed_ms = 0;
        std::int64_t limit_ms = 0; ///< 0: left out.
    };
    /// @errors io_error, resource_exhausted
    [[nodiscard]] Result<void> append(const Line& line);

private:
    EventsLog(std::string path, UniqueFd fd) : path_(std::move(path)), fd_(std::move(fd)) {}
    std::string path_;
    UniqueFd fd_;
    std::uint64_t size_ = 0;
};

/// `text` from outside, fit for a terminal and a log line: line ends become spaces, other control
/// characters '?', what is no UTF-8 U+FFFD, and it is cut at `max_bytes` with "...".
[[nodiscard]] std::string printable(std::string_view text, std::size_t max_bytes = 512);

} // namespace host_runner::instance

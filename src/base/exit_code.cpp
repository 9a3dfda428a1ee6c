// SPDX-License-Identifier: Apache-2.0
#include "host_runner/base/exit_code.hpp"

#include <array>

namespace host_runner {

namespace {

constexpr std::array<ExitCodeRow, 16> table{{
    {ExitCode::success, "success", "Done; for run: the guest powered off or was stopped as asked"},
    {ExitCode::failure, "failure", "Another failure, named in the message"},
    {ExitCode::usage, "usage", "A wrong option, value or compose file; nothing was started"},
    {ExitCode::not_found, "not_found", "The instance, image or file does not exist"},
    {ExitCode::conflict, "conflict", "A port, name, disk or device is held by somebody else"},
    {ExitCode::permission, "permission", "This user may not do that"},
    {ExitCode::unsupported, "unsupported", "This host or QEMU lacks what was asked, e.g. TDX"},
    {ExitCode::exhausted, "exhausted", "Disk, memory, ports or hugepages are used up"},
    {ExitCode::timeout, "timeout", "A deadline passed"},
    {ExitCode::corrupt, "corrupt", "An image or state file is damaged or was changed"},
    {ExitCode::qemu_start_failed, "qemu_start_failed", "QEMU refused to start"},
    {ExitCode::qemu_died, "qemu_died", "QEMU ended by itself: crashed or was killed"},
    {ExitCode::guest_boot_error, "guest_boot_error", "The guest reported that its start failed"},
    {ExitCode::guest_panic, "guest_panic", "The guest's kernel panicked"},
    {ExitCode::guest_reset, "guest_reset", "The guest reset itself and no restart was asked for"},
    {ExitCode::stopped_by_force, "stopped_by_force",
     "Stopped as asked, but QEMU had to be killed: data in the guest may be lost"},
}};

} // namespace

std::span<const ExitCodeRow> exit_code_table() noexcept {
    return table;
}

std::string_view to_string(ExitCode code) noexcept {
    return table.at(static_cast<std::size_t>(code)).name;
}

ExitCode exit_code_for(ErrorCode code) noexcept {
    switch (code) {
    case ErrorCode::invalid_argument:
        return ExitCode::usage;
    case ErrorCode::not_found:
        return ExitCode::not_found;
    case ErrorCode::already_exists:
    case ErrorCode::wrong_state:
        return ExitCode::conflict;
    case ErrorCode::permission_denied:
        return ExitCode::permission;
    case ErrorCode::unsupported:
        return ExitCode::unsupported;
    case ErrorCode::resource_exhausted:
        return ExitCode::exhausted;
    case ErrorCode::timeout:
        return ExitCode::timeout;
    case ErrorCode::corrupt_data:
        return ExitCode::corrupt;
    case ErrorCode::unavailable:
    case ErrorCode::io_error:
    case ErrorCode::internal:
        return ExitCode::failure;
    }
    return ExitCode::failure;
}

} // namespace host_runner

// SPDX-License-Identifier: Apache-2.0
#include "host_runner/agent/data_disk.hpp"

#include <algorithm>

#include <sys/mount.h>

#include <fmt/format.h>

#include "host_runner/agent/block_device.hpp"
#include "host_runner/base/files.hpp"

namespace host_runner::agent {

namespace {

/// Of a sparse disk of any size: mke2fs writes only the first groups, the kernel does the rest
/// later.
constexpr std::chrono::seconds format_timeout{120};

Result<void> format(const std::string& device, ProcessLauncher& launcher) {
    ProcessSpec spec;
    spec.argv = {"mke2fs", "-q", "-t",
                 "ext4",   "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard",
                 device};
    HR_TRY(const auto output, run_captured(launcher, spec, format_timeout));
    if (!output.status.exited || output.status.code != 0)
        return fail(ErrorCode::io_error,
                    fmt::format("Cannot format the data disk {}: mke2fs ended with {}: {}", device,
                                output.status.describe(), output.err));
    return {};
}

} // namespace

bool is_tdx_guest(std::string_view cpuinfo) {
    const auto begin = cpuinfo.find("\nflags");
    if (begin == std::string_view::npos)
        return false;
    auto flags = std::string(cpuinfo.substr(begin + 1, cpuinfo.find('\n', begin + 1) - begin - 1));
    return (flags + ' ').find(" tdx_guest ") != std::string::npos;
}

std::string_view to_string(DataDiskState state) noexcept {
    return state == DataDiskState::plain ? "plain" : "none";
}

Result<DataDiskState> set_up_data_disk(const DataDiskRequest& request, ProcessLauncher& launcher,
                                       Mounter& mounter,
                                       const std::function<void(std::string_view)>& progress,
                                       const std::function<void(std::string_view)>& say) {
    if (request.device.empty()) {
        say("There is no data disk: nothing outlives this boot");
        return DataDiskState::none;
    }
    if (request.is_tdx_guest) {
        say("The data disk stays unformatted: key release is not in this version, and without a "
            "key the host could read it");
        return DataDiskState::none;
    }
    HR_TRY(const bool blank, is_blank(request.device));
    if (blank) {
        progress("initializing data disk");
        HR_CHECK(format(request.device, launcher));
    } else {
        progress("mounting data disk");
    }
    HR_CHECK(make_directories(request.mount_point, 0755));
    HR_CHECK(mounter
                 .mount({request.device, request.mount_point, "ext4", MS_NOSUID | MS_NODEV,
                         "errors=remount-ro"})
                 .map_error([](Error error) {
                     error.hint = "the data disk holds something that is not ours, and is never "
                                  "formatted then; start with a new instance, or remove this one's "
                                  "disk on the host";
                     return error;
                 }));
    say("The data disk is not encrypted: this VM has no TEE, so its host can read it");
    return DataDiskState::plain;
}

} // namespace host_runner::agent

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// What a QEMU binary can do, asked from itself over QMP and remembered.
///
///     ForkExecLauncher launcher;
///     HR_TRY(const auto known, probe_capabilities(launcher, "qemu-system-x86_64", cache));

#include <string>

#include "host_runner/base/error.hpp"
#include "host_runner/base/process.hpp"

namespace host_runner::qemu {

struct Capabilities {
    std::string path;    ///< Absolute.
    std::string version; ///< "7.2.22"
    std::string package; ///< e.g. "Debian 1:7.2+dfsg-7+deb12u18"; may be empty.
    int major = 0, minor = 0, micro = 0;
    bool tdx_guest = false;        ///< The tdx-guest object exists.
    bool tdx_quote_socket = false; ///< ... with quote-generation-socket.
    bool run_with_exit_with_parent = false;
    bool json_netdev = false; ///< JSON for -netdev, -device and -object (7.2 on).
    bool iommufd = false;
    bool vhost_vsock = false;
    bool virtio_9p = false;
    [[nodiscard]] bool at_least(int wanted_major, int wanted_minor) const noexcept {
        return major > wanted_major || (major == wanted_major && minor >= wanted_minor);
    }
};

/// Runs `QEMU -M none -S ... -qmp stdio` (about 30 ms) unless `cache_directory` has an answer for
/// this path, device, inode, size and mtime. A cache that cannot be written only costs that time
/// (logged at debug level); an empty `cache_directory` remembers nothing.
/// @param program a path, or a name to be looked up in PATH
/// @errors not_found: no such program, with the package to install; permission_denied: not to be
///         executed; unsupported: older than 7.2; corrupt_data: the answers make no sense; timeout
[[nodiscard]] Result<Capabilities> probe_capabilities(ProcessLauncher& launcher,
                                                      const std::string& program,
                                                      const std::string& cache_directory);

} // namespace host_runner::qemu

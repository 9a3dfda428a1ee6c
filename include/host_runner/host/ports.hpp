// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Host ports, before QEMU binds them: QEMU's own message names neither the cause nor the owner.
///
///     HR_TRY(auto mapping, settle_host_port(asked, is_claimed));   // host_port is not 0 now
///
/// A port found free can be taken by somebody else until QEMU binds it: QEMU's error is final then,
/// or with host port 0 another try. Claims between instances are instance::Claims' work.

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "host_runner/base/error.hpp"
#include "host_runner/host/host_root.hpp"
#include "host_runner/host/open_files.hpp"
#include "host_runner/spec/port_mapping.hpp"

namespace host_runner::host {

/// From /proc/net/{tcp,tcp6,udp,udp6} and the descriptors in /proc/*/fd. nullopt: nobody, another
/// network namespace, or a process of another user that we may not look into.
[[nodiscard]] std::optional<ProcessHolder> find_port_owner(const spec::PortMapping& mapping,
                                                           const HostRoot& root = {});

/// Binds the mapping's host address and port (not 0) as QEMU will, and lets go of it.
/// @errors already_exists: taken, with its owner where known; permission_denied: a port that needs
///         privileges; invalid_argument: not an address of this host
[[nodiscard]] Result<void> check_port_free(const spec::PortMapping& mapping,
                                           const HostRoot& root = {});

/// True: do not hand out this one (with its host port filled in).
using PortTaken = std::function<bool(const spec::PortMapping& candidate)>;

/// The mapping with its host port settled: a given one is checked by check_port_free(), 0 becomes a
/// port of the kernel's choice that is free and not `taken`.
/// @errors as check_port_free(); resource_exhausted: no free port found
[[nodiscard]] Result<spec::PortMapping> settle_host_port(const spec::PortMapping& mapping,
                                                         const PortTaken& taken = {},
                                                         const HostRoot& root = {});

} // namespace host_runner::host

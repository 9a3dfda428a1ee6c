// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Puts Destinations between libslirp and the kernel. This program has functions connect(),
/// sendto() and recvfrom() of its own, and the dynamic linker binds libslirp's calls to them before
/// the C library's (System V ABI, "Shared Object Dependencies": the program's symbols come first).
///
///     Destinations allowed(settings, nameservers);
///     HR_CHECK(guard_sockets(allowed));      // from here on; before the first packet
///
/// Without a guard none of the three sends anything anywhere: connect() and sendto() fail with
/// EPERM.

#include "host_runner/base/error.hpp"
#include "host_runner/usernet/program/destinations.hpp"

namespace host_runner::usernet::program {

/// @param destinations borrowed until the process ends or release_sockets()
/// @errors internal: another function would get libslirp's calls
[[nodiscard]] Result<void> guard_sockets(Destinations& destinations);
/// Nothing is let through any more.
void release_sockets() noexcept;

} // namespace host_runner::usernet::program

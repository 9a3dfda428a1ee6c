// SPDX-License-Identifier: Apache-2.0
#pragma once

/// A vsock address (CID) for a guest, claimed without a race: the kernel gives it to the open
/// /dev/vhost-vsock descriptor until the last copy of that is closed, and QEMU inherits one.
///
///     VhostVsock device;
///     HR_TRY(auto claimed, claim_cid(device));
///     ... pass claimed.fd to QEMU as vhostfd, with guest-cid = claimed.cid; then close ours

#include <cstdint>
#include <functional>
#include <utility>

#include "host_runner/base/error.hpp"
#include "host_runner/base/unique_fd.hpp"
#include "host_runner/host/host_root.hpp"

namespace host_runner::host {

/// The edge to the kernel.
class VsockDevice {
public:
    virtual ~VsockDevice() = default;
    /// @errors unsupported: there is no vhost-vsock; permission_denied; with a remedy
    [[nodiscard]] virtual Result<UniqueFd> open() = 0;
    /// @return 0, or the errno: EADDRINUSE = taken, EINVAL = reserved (up to 2, and 2^32-1)
    [[nodiscard]] virtual int set_guest_cid(int fd, std::uint32_t cid) = 0;
};

class VhostVsock final : public VsockDevice {
public:
    explicit VhostVsock(HostRoot root = {}) : root_(std::move(root)) {}
    [[nodiscard]] Result<UniqueFd> open() override;
    [[nodiscard]] int set_guest_cid(int fd, std::uint32_t cid) override;

private:
    HostRoot root_;
};

/// dstack's pool of CIDs.
inline constexpr std::uint32_t first_guest_cid = 1000;
inline constexpr std::uint32_t last_guest_cid = 1999;

struct ClaimedCid {
    std::uint32_t cid = 0;
    UniqueFd fd; ///< O_CLOEXEC
};

/// The lowest CID of the pool that is free and not `taken`.
/// @errors as VsockDevice::open(); resource_exhausted: none left; io_error
[[nodiscard]] Result<ClaimedCid>
claim_cid(VsockDevice& device, const std::function<bool(std::uint32_t cid)>& taken = {});

} // namespace host_runner::host

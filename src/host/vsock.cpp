// SPDX-License-Identifier: Apache-2.0
#include "host_runner/host/vsock.hpp"

#include <cerrno>

#include <fcntl.h>
#include <sys/ioctl.h>

#include <fmt/format.h>

namespace host_runner::host {

namespace {

/// VHOST_VSOCK_SET_GUEST_CID of Linux include/uapi/linux/vhost.h, which C++ cannot include.
constexpr unsigned long set_guest_cid_request = _IOW(0xAF, 0x60, std::uint64_t);

} // namespace

Result<UniqueFd> VhostVsock::open() {
    const auto path = root_.path("/dev/vhost-vsock");
    UniqueFd fd(::open(path.c_str(), O_RDWR | O_CLOEXEC));
    if (fd)
        return fd;
    const int saved_errno = errno;
    // ENODEV: the node is there (static, by udev), the module is not.
    if (saved_errno == ENOENT || saved_errno == ENODEV || saved_errno == ENXIO)
        return fail(ErrorCode::unsupported,
                    fmt::format("This host has no vsock for VMs: {} is missing", path),
                    "load the module: modprobe vhost_vsock");
    return fail_errno(fmt::format("Cannot open {}", path), saved_errno,
                      "this user needs read and write access to it, usually by the group kvm");
}

int VhostVsock::set_guest_cid(int fd, std::uint32_t cid) {
    const std::uint64_t value = cid;
    return ::ioctl(fd, set_guest_cid_request, &value) == 0 ? 0 : errno;
}

Result<ClaimedCid> claim_cid(VsockDevice& device,
                             const std::function<bool(std::uint32_t cid)>& taken) {
    HR_TRY(auto fd, device.open());
    for (std::uint32_t cid = first_guest_cid; cid <= last_guest_cid; ++cid) {
        if (taken && taken(cid))
            continue;
        const int error = device.set_guest_cid(fd.get(), cid);
        if (error == 0)
            return ClaimedCid{cid, std::move(fd)};
        if (error != EADDRINUSE)
            return fail_errno(fmt::format("Cannot claim vsock CID {}", cid), error);
    }
    return fail(
        ErrorCode::resource_exhausted,
        fmt::format("All vsock CIDs from {} to {} are taken", first_guest_cid, last_guest_cid),
        "stop a VM: `host_runner list` shows them");
}

} // namespace host_runner::host

// SPDX-License-Identifier: Apache-2.0
#include "host_runner/host/tap.hpp"

#include <algorithm>
#include <cerrno>

#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <fmt/format.h>

namespace host_runner::host {

namespace {

constexpr std::size_t id_digits = 8;

constexpr auto rights = "run host_runner as root, or give it the right: "
                        "setcap cap_net_admin+ep /usr/bin/host_runner; or use --net user";

void set_name(ifreq& request, const std::string& name) noexcept {
    std::copy_n(name.begin(), std::min<std::size_t>(name.size(), IFNAMSIZ - 1),
                static_cast<char*>(request.ifr_name));
}

/// One ioctl on any socket, which is how interfaces are addressed (netdevice(7)).
template <class Request>
int on_socket(unsigned long call, Request& request) {
    const UniqueFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    if (!socket || ::ioctl(socket.get(), call, &request) != 0)
        return errno;
    return 0;
}

tl::unexpected<Error> tap_error(const std::string& bridge, std::string_view step, int error) {
    const auto what = fmt::format("Cannot {} for bridge {}", step, bridge);
    if (error == EPERM || error == EACCES)
        return fail(
            ErrorCode::permission_denied,
            fmt::format("{}: that needs CAP_NET_ADMIN, which this process does not have", what),
            rights);
    if (error == ENOENT || error == ENODEV || error == ENXIO)
        return fail(ErrorCode::unsupported, fmt::format("{}: the kernel has no /dev/net/tun", what),
                    "modprobe tun");
    return fail_errno(what, error);
}

/// A tap that is a port of the bridge, not set up yet.
Result<UniqueFd> make_in_bridge(TapMaker& kernel, const std::string& bridge,
                                const std::string& name) {
    UniqueFd device;
    if (const int error = kernel.open_device(device); error != 0)
        return tap_error(bridge, "open /dev/net/tun", error);
    if (const int error = kernel.make_tap(device.get(), name); error != 0)
        return tap_error(bridge, fmt::format("make the tap {}", name), error);
    if (const int error = kernel.add_to_bridge(bridge, name); error != 0)
        return fail_errno(fmt::format("Cannot put the tap {} into bridge {}", name, bridge), error,
                          "the bridge may be full (1023 ports), or gone");
    return device;
}

Result<void> check_interface(TapMaker& kernel, const std::string& bridge) {
    if (!kernel.interface_exists(bridge))
        return fail(ErrorCode::not_found, fmt::format("There is no bridge {}", bridge),
                    "`ip link show type bridge` lists them; `ip link add NAME type bridge` makes "
                    "one");
    if (!kernel.is_bridge(bridge))
        return fail(ErrorCode::invalid_argument,
                    fmt::format("The interface {} is not a bridge", bridge),
                    "`ip link show type bridge` lists those that are");
    return {};
}

} // namespace

int KernelTaps::open_device(UniqueFd& device) {
    device.reset(::open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK));
    return device ? 0 : errno;
}

int KernelTaps::make_tap(int device, const std::string& name) {
    ifreq request{};
    set_name(request, name);
    // QEMU asks what a tap's frames look like (TUNGETIFF) and wants the header for offloads
    // (qemu@7.2 net/tap-linux.c, tap_probe_vnet_hdr).
    request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
    return ::ioctl(device, TUNSETIFF, &request) == 0 ? 0 : errno;
}

int KernelTaps::add_to_bridge(const std::string& bridge, const std::string& name) {
    const auto index = ::if_nametoindex(name.c_str());
    if (index == 0)
        return errno;
    ifreq request{};
    set_name(request, bridge);
    request.ifr_ifindex = static_cast<int>(index);
    return on_socket(SIOCBRADDIF, request);
}

int KernelTaps::set_up(const std::string& name) {
    ifreq request{};
    set_name(request, name);
    if (const int error = on_socket(SIOCGIFFLAGS, request); error != 0)
        return error;
    request.ifr_flags = static_cast<short>(request.ifr_flags | IFF_UP);
    return on_socket(SIOCSIFFLAGS, request);
}

bool KernelTaps::interface_exists(const std::string& name) {
    return ::if_nametoindex(name.c_str()) != 0;
}

bool KernelTaps::is_bridge(const std::string& name) {
    // Not by /sys, which may show the interfaces of another network namespace.
    ethtool_drvinfo info{};
    info.cmd = ETHTOOL_GDRVINFO;
    ifreq request{};
    set_name(request, name);
    request.ifr_data = reinterpret_cast<char*>(&info);
    return on_socket(SIOCETHTOOL, request) == 0 &&
           std::string_view(static_cast<const char*>(info.driver)) == "bridge";
}

std::string tap_name(std::string_view instance_id) {
    return fmt::format("hr-{}", instance_id.substr(0, id_digits));
}

Result<void> check_bridge(TapMaker& kernel, const std::string& bridge) {
    HR_CHECK(check_interface(kernel, bridge));
    UniqueFd device;
    if (const int error = kernel.open_device(device); error != 0)
        return tap_error(bridge, "open /dev/net/tun", error);
    // Under a name that the kernel chooses, so that two at once do not meet.
    if (const int error = kernel.make_tap(device.get(), "hr-check%d"); error != 0)
        return tap_error(bridge, "make a tap", error);
    return {};
}

Result<UniqueFd> open_tap(TapMaker& kernel, const std::string& bridge, const std::string& name) {
    HR_CHECK(check_interface(kernel, bridge));
    HR_TRY(auto device, make_in_bridge(kernel, bridge, name));
    if (const int error = kernel.set_up(name); error != 0)
        return fail_errno(fmt::format("Cannot set the tap {} up", name), error);
    return device;
}

} // namespace host_runner::host

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// A VM's place in a bridge of the host: a tap, opened here and passed to QEMU, which may not make
/// one itself. It is gone with its last descriptor.
///
///     KernelTaps kernel;
///     HR_CHECK(check_bridge(kernel, "br0"));                    // takes nothing that stays
///     HR_TRY(auto fd, open_tap(kernel, "br0", tap_name(id)));

#include <string>
#include <string_view>

#include "host_runner/base/error.hpp"
#include "host_runner/base/unique_fd.hpp"

namespace host_runner::host {

/// The edge to the kernel. Each answers 0 or an errno.
class TapMaker {
public:
    virtual ~TapMaker() = default;
    /// /dev/net/tun
    [[nodiscard]] virtual int open_device(UniqueFd& device) = 0;
    /// Makes the interface of the descriptor (TUNSETIFF).
    [[nodiscard]] virtual int make_tap(int device, const std::string& name) = 0;
    [[nodiscard]] virtual int add_to_bridge(const std::string& bridge, const std::string& name) = 0;
    [[nodiscard]] virtual int set_up(const std::string& name) = 0;
    [[nodiscard]] virtual bool interface_exists(const std::string& name) = 0;
    /// True: it is a bridge.
    [[nodiscard]] virtual bool is_bridge(const std::string& name) = 0;
};

class KernelTaps final : public TapMaker {
public:
    [[nodiscard]] int open_device(UniqueFd& device) override;
    [[nodiscard]] int make_tap(int device, const std::string& name) override;
    [[nodiscard]] int add_to_bridge(const std::string& bridge, const std::string& name) override;
    [[nodiscard]] int set_up(const std::string& name) override;
    [[nodiscard]] bool interface_exists(const std::string& name) override;
    [[nodiscard]] bool is_bridge(const std::string& name) override;
};

/// "hr-" and the first eight digits of the instance's id: `ip link` shows whose it is.
[[nodiscard]] std::string tap_name(std::string_view instance_id);

/// Whether a tap can be had there. A tap is made and is gone again: only the kernel knows who may.
/// @errors not_found: no such interface; invalid_argument: it is no bridge; unsupported: no
///         /dev/net/tun; permission_denied: CAP_NET_ADMIN is missing
[[nodiscard]] Result<void> check_bridge(TapMaker& kernel, const std::string& bridge);

/// Makes the tap, puts it into the bridge and sets it up. @errors as check_bridge(); already_exists
[[nodiscard]] Result<UniqueFd> open_tap(TapMaker& kernel, const std::string& bridge,
                                        const std::string& name);

} // namespace host_runner::host

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Devices that an instance took from the host and, killed, could not give back: its folder's
/// journal has them, and nobody holds its lock.

#include <functional>
#include <string>
#include <vector>

#include "host_runner/base/error.hpp"
#include "host_runner/host/device_binder.hpp"
#include "host_runner/host/host_root.hpp"
#include "host_runner/instance/registry.hpp"
#include "host_runner/spec/pci_address.hpp"

namespace host_runner::instance {

struct HeldDevices {
    std::string id;
    std::string name; ///< Empty: a temporary instance.
    std::vector<spec::PciAddress> devices;

    /// "id" or "name (id)"
    [[nodiscard]] std::string label() const;
};

/// Those of all dead instances. A journal that cannot be read is told to `on_problem` and left out.
/// Reads only. @errors permission_denied, io_error: the state folder
[[nodiscard]] Result<std::vector<HeldDevices>>
find_held_devices(const Registry& registry, const host::HostRoot& root = {},
                  const std::function<void(const Error&)>& on_problem = {});

struct ReclaimedDevice {
    std::string id;
    std::string name;
    host::ReturnedDevice device;
};

/// Gives back what dead instances hold, each with its lock held, and goes on after a failure.
/// @param on_device   called for each device as it is done, also for those that failed
/// @param on_problem  a journal that cannot be read or a lock that cannot be taken
/// @errors permission_denied, io_error: the state folder
[[nodiscard]] Result<void>
reclaim_devices(const Registry& registry, host::SysfsWriter& kernel, const host::HostRoot& root,
                const std::function<void(const ReclaimedDevice&)>& on_device,
                const std::function<void(const Error&)>& on_problem);

} // namespace host_runner::instance

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Who starts QEMU in place of this process. Implemented further down the list of modules (libvirt)
/// and handed to run_instance(), so that `run` needs neither its code nor its libraries.

#include <string>

#include "host_runner/base/error.hpp"
#include "host_runner/instance/machine.hpp"
#include "host_runner/instance/placement.hpp"
#include "host_runner/qemu/capabilities.hpp"
#include "host_runner/qemu/launch_plan.hpp"
#include "host_runner/spec/vm_spec.hpp"

namespace host_runner::instance {

class Backend : public MachineStarter {
public:
    /// Reaches the backend; nothing is taken yet. To be called before anything else.
    /// @return what answers, for people: "libvirt 9.0.0 at qemu:///system"
    /// @errors unavailable, permission_denied: nobody answers, with what to install or join;
    ///         unsupported: an address that cannot work, or a version too old for such a VM
    [[nodiscard]] virtual Result<std::string> connect(spec::Tee tee) = 0;

    /// The plan in the backend's own words: Launch::description.
    /// @errors unsupported: this backend, or its version, cannot do what the plan asks for
    [[nodiscard]] virtual Result<std::string>
    describe(const qemu::LaunchPlan& plan, const Placement& placement,
             const qemu::Capabilities& capabilities) const = 0;

    /// As in records: "libvirt".
    [[nodiscard]] virtual std::string name() const = 0;
    /// Where it is: libvirt's URI.
    [[nodiscard]] virtual std::string address() const = 0;
    /// The name by which the backend's own tools know the instance's VM.
    [[nodiscard]] virtual std::string machine_name(const std::string& instance_id) const = 0;
};

} // namespace host_runner::instance

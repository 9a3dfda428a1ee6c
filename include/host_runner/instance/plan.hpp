// SPDX-License-Identifier: Apache-2.0
#pragma once

/// What the user asked for + the image + the host's facts -> the launch plan. Pure: no file is
/// looked at, nothing is taken.
///
///     HR_TRY(auto plan, plan_launch({spec, image, files, facts, id, directory}));
///     plan.launch.vsock_cid = claimed_cid;      // what only a claim can settle
///     HR_TRY(auto argv, qemu::build_argv(plan.launch, capabilities));

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "host_runner/base/error.hpp"
#include "host_runner/host/gpu.hpp"
#include "host_runner/host/memory.hpp"
#include "host_runner/image/image.hpp"
#include "host_runner/instance/delivery.hpp"
#include "host_runner/instance/placement.hpp"
#include "host_runner/qemu/launch_plan.hpp"
#include "host_runner/spec/vm_spec.hpp"
#include "host_runner/usernet/choice.hpp"

namespace host_runner::instance {

/// What the plan depends on of this machine.
struct HostFacts {
    qemu::Accelerator accelerator = qemu::Accelerator::tcg;
    std::string accelerator_reason;
    bool has_vhost_vsock = false;  ///< /dev/vhost-vsock can be opened.
    std::uint32_t online_cpus = 1; ///< Logical processors.
    host::Memory memory;
    HostNuma numa = {};
    host::GpuSelection gpus = {};
    usernet::Programs network_programs = {};
    /// Of the VM's processor; nullopt: not known.
    std::optional<unsigned> physical_address_bits = {};
};

struct PlanInput {
    const spec::VmSpec& spec;
    const image::Image& image;
    const GuestFiles& files;
    const HostFacts& host;
    std::string id;
    std::string directory; ///< Of the instance; absolute.
};

struct Plan {
    /// All but the settled host ports (still as asked for, 0 = any) and the vsock CID.
    qemu::LaunchPlan launch;
    Placement placement;
    usernet::Choice network;
    std::vector<std::string> warnings;
};

/// The descriptor number under which QEMU finds /dev/vhost-vsock.
inline constexpr int qemu_vsock_fd = 3;
/// ... and what carries the network's frames.
inline constexpr int qemu_network_fd = 4;

/// @errors unsupported: the image lacks what the request needs (firmware), or the host does
///         (a channel to a dstack guest); resource_exhausted: a TD's memory, which cannot be
///         swapped, exceeds what the host has left, or the GPUs' BARs do not fit; invalid_argument:
///         fields that do not go together
[[nodiscard]] Result<Plan> plan_launch(const PlanInput& input);

/// Whether the guest may open connections to the outside: as --egress says, else as the compose
/// file does; dstack's guests may, because they pull containers. @errors corrupt_data
[[nodiscard]] Result<bool> wants_egress(const spec::VmSpec& spec, const image::Image& image,
                                        const GuestFiles& files);

/// The host ports to forward: -p, and of the compose file's those whose guest port -p does not
/// name. Without a user network the compose file's are left out, with a warning.
[[nodiscard]] std::vector<spec::PortMapping>
ports_to_forward(const spec::VmSpec& spec, const std::vector<spec::PortMapping>& from_compose,
                 std::vector<std::string>& warnings);

/// The plan as one JSON object with `schema_version`, for `run --dry-run --output json`.
[[nodiscard]] std::string encode_plan(const Plan& plan, const std::vector<std::string>& argv,
                                      const GuestFiles& files);

} // namespace host_runner::instance

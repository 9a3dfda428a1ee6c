// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The launch plan as libvirt's domain XML: the same machine as build_argv() gives, device by
/// device at the same PCI slots. Pure, and needs no libvirt.
///
///     HR_CHECK(qemu::build_argv(plan, capabilities));   // the plan is one that QEMU can start
///     HR_TRY(const auto xml, build_domain_xml(plan, {.emulator = capabilities.path}));

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <sys/types.h>

#include "host_runner/base/error.hpp"
#include "host_runner/instance/placement.hpp"
#include "host_runner/qemu/launch_plan.hpp"

namespace host_runner::libvirt {

/// major * 1000000 + minor * 1000 + release, as virConnectGetLibVersion() counts.
using Version = std::uint64_t;
/// "12.8.0"
[[nodiscard]] std::string format_version(Version version);

/// The first libvirt with <launchSecurity type='tdx'>.
inline constexpr Version tdx_version = 11'006'000;
/// The first libvirt that gives a host device to QEMU through iommufd.
/// Source: libvirt 12.8.0, docs/formatdomain, "Host device assignment"
inline constexpr Version iommufd_version = 12'001'000;

/// What the XML depends on besides the plan.
struct DomainFacts {
    Version version = 0; ///< Of the daemon; 0: not known, taken for the newest.
    std::string emulator = "/usr/bin/qemu-system-x86_64"; ///< Absolute.
    /// As whom QEMU runs below a daemon of root's, so that it can open what lies in the instance
    /// folder (0700) and nothing there changes its owner. nullopt: a daemon of this user.
    struct User {
        uid_t uid = 0;
        gid_t gid = 0;
    };
    std::optional<User> user;
    std::uint64_t hugepage_bytes = 0; ///< Of each page, where the plan takes hugepages.
    std::optional<instance::Pinning> pinning;
};

/// "host-runner-0123456789ab"
[[nodiscard]] std::string domain_name(const std::string& instance_id);
/// Always the same for one instance, so that its SMBIOS table is, too.
[[nodiscard]] std::string domain_uuid(const std::string& instance_id);

/// Whether a daemon of this version can start such a VM at all. @errors unsupported: names both
[[nodiscard]] Result<void> check_version(Version version, spec::Tee tee);

struct DomainIdentity {
    std::string name, uuid;
};
/// Of a domain that build_domain_xml() made. @errors corrupt_data
[[nodiscard]] Result<DomainIdentity> domain_identity(const std::string& xml);

/// @param plan one that build_argv() accepts
/// @errors unsupported: this libvirt, or none, can do what the plan asks for (the message says
/// which
///         version is needed); invalid_argument: a path or text that no XML can hold
[[nodiscard]] Result<std::string> build_domain_xml(const qemu::LaunchPlan& plan,
                                                   const DomainFacts& facts);

} // namespace host_runner::libvirt

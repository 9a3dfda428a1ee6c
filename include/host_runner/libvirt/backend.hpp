// SPDX-License-Identifier: Apache-2.0
#pragma once

/// VMs that libvirt starts, watches and stops for us: transient domains that end with our
/// connection to its daemon.
///
///     auto backend = make_backend(spec.backend);
///     auto outcome = instance::run_instance(spec, observer, {}, backend.get());
///
/// libvirt itself is loaded with connect(), from lib/host-runner/libvirt.so; a `run` without this
/// backend loads nothing of it.

#include <memory>
#include <string>

#include "host_runner/base/error.hpp"
#include "host_runner/instance/backend.hpp"
#include "host_runner/libvirt/domain_xml.hpp"
#include "host_runner/spec/vm_spec.hpp"

namespace host_runner::libvirt {

/// The URI to use. @param uid of the runner
/// @errors unsupported: a daemon on another machine, which cannot reach the instance folder; a
///         hypervisor other than QEMU; the system's daemon, whose sockets only root may open, for
///         another user; invalid_argument: no URI
[[nodiscard]] Result<std::string> choose_uri(const spec::Backend& backend, uid_t uid);

/// What the XML depends on for a runner of these ids. @param uri as of choose_uri()
[[nodiscard]] DomainFacts domain_facts(const std::string& uri, uid_t uid, gid_t gid,
                                       const instance::Placement& placement,
                                       const std::string& qemu_path);

/// Nothing is loaded or asked before connect().
[[nodiscard]] std::unique_ptr<instance::Backend> make_backend(const spec::Backend& backend);

} // namespace host_runner::libvirt

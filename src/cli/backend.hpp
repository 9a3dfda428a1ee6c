// SPDX-License-Identifier: Apache-2.0
#pragma once

/// What the command line knows of libvirt.

#include <memory>
#include <string>

#include "host_runner/base/error.hpp"
#include "host_runner/instance/backend.hpp"
#include "host_runner/instance/run.hpp"
#include "host_runner/spec/vm_spec.hpp"

namespace host_runner::cli {

/// @return nullptr: this process starts QEMU itself
[[nodiscard]] std::unique_ptr<instance::Backend> backend_of(const spec::VmSpec& spec);

/// The dry run as libvirt's domain XML, for the newest libvirt. @errors as build_domain_xml()
[[nodiscard]] Result<std::string> domain_xml(const spec::VmSpec& spec, const instance::DryRun& dry);

} // namespace host_runner::cli

// SPDX-License-Identifier: Apache-2.0
#include "backend.hpp"

#include <unistd.h>

#include "host_runner/libvirt/backend.hpp"

namespace host_runner::cli {

std::unique_ptr<instance::Backend> backend_of(const spec::VmSpec& spec) {
    return spec.backend.libvirt ? libvirt::make_backend(spec.backend) : nullptr;
}

Result<std::string> domain_xml(const spec::VmSpec& spec, const instance::DryRun& dry) {
    HR_TRY(const auto uri, libvirt::choose_uri(spec.backend, ::geteuid()));
    auto plan = dry.plan;
    plan.vsock_cid = 0; // of no claim: libvirt finds a free one
    return libvirt::build_domain_xml(
        plan, libvirt::domain_facts(uri, ::geteuid(), ::getegid(), dry.placement, dry.qemu_path));
}

} // namespace host_runner::cli

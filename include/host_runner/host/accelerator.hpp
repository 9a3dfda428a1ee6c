// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "host_runner/base/error.hpp"
#include "host_runner/host/host_root.hpp"
#include "host_runner/spec/vm_spec.hpp"

namespace host_runner::host {

enum class AcceleratorKind { kvm, tcg };
[[nodiscard]] std::string_view to_string(AcceleratorKind kind) noexcept;

struct AcceleratorDecision {
    AcceleratorKind kind = AcceleratorKind::tcg;
    /// For the user, e.g. "KVM: the processor has vmx and /dev/kvm opens".
    std::string reason;
};

/// The processor flag of hardware virtualisation, vmx or svm.
/// @errors unsupported, with the remedy; as read_cpu_flags()
[[nodiscard]] Result<std::string> find_virtualisation(const HostRoot& root = {});
/// Whether /dev/kvm opens for reading and writing.
/// @errors unsupported, permission_denied; with the remedy
[[nodiscard]] Result<void> check_kvm_device(const HostRoot& root = {});

/// KVM is usable with hardware virtualisation (vmx or svm in the CPU flags) AND a /dev/kvm that
/// opens for reading and writing: a device node alone proves nothing in containers.
/// `automatic` takes KVM where usable, else TCG, and says why.
/// @errors unsupported, permission_denied: `kvm` was asked for and is not usable; with a remedy
[[nodiscard]] Result<AcceleratorDecision> choose_accelerator(spec::AcceleratorChoice choice,
                                                             const HostRoot& root = {});

} // namespace host_runner::host

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>

#include "host_runner/base/error.hpp"
#include "host_runner/host/host_root.hpp"

namespace host_runner::host {

/// The edge to the kernel: the bits of KVM_CHECK_EXTENSION(KVM_CAP_VM_TYPES) on an opened kvm
/// device; bit n says that VMs of type n can be made.
using VmTypesQuery = std::function<Result<unsigned>(const std::string& kvm_device)>;

/// The real one. @errors not_found, permission_denied, io_error
[[nodiscard]] Result<unsigned> query_kvm_vm_types(const std::string& kvm_device);

// What a host must have to start a TD: Linux Documentation/virt/kvm/x86/intel-tdx.rst and api.rst,
// 6.16.

/// The processor flag tdx_host_platform. @errors unsupported; as read_cpu_flags()
[[nodiscard]] Result<void> check_tdx_processor(const HostRoot& root = {});
/// /sys/module/kvm_intel/parameters/tdx = Y. @errors unsupported; permission_denied, io_error
[[nodiscard]] Result<void> check_tdx_parameter(const HostRoot& root = {});
/// KVM_X86_TDX_VM among KVM's types. @errors unsupported; as `query`
[[nodiscard]] Result<void> check_tdx_vms(const HostRoot& root = {},
                                         const VmTypesQuery& query = query_kvm_vm_types);

/// All three; all that are missing are named.
/// @errors unsupported: "This host cannot start a TDX guest: FACT; FACT" with the remedy. The text
///         depends on nothing but the facts
[[nodiscard]] Result<void> check_tdx(const HostRoot& root = {},
                                     const VmTypesQuery& query = query_kvm_vm_types);

} // namespace host_runner::host

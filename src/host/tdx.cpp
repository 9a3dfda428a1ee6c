// SPDX-License-Identifier: Apache-2.0
#include "host_runner/host/tdx.hpp"

#include <cerrno>
#include <vector>

#include <fcntl.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>

#include <fmt/format.h>

#include "host_runner/base/files.hpp"
#include "host_runner/base/unique_fd.hpp"
#include "host_runner/host/cpu_flags.hpp"

namespace host_runner::host {

namespace {

// Debian 12's kernel headers (6.1) do not have them yet. Linux include/uapi/linux/kvm.h and
// arch/x86/include/uapi/asm/kvm.h.
constexpr unsigned long kvm_cap_vm_types = 235;
constexpr unsigned kvm_x86_tdx_vm = 5;

constexpr std::string_view module_parameter = "/sys/module/kvm_intel/parameters/tdx";

} // namespace

Result<void> check_tdx_processor(const HostRoot& root) {
    HR_TRY(const auto flags, read_cpu_flags(root));
    if (flags.contains("tdx_host_platform"))
        return {};
    return fail(ErrorCode::unsupported,
                "the processor flag tdx_host_platform is not in /proc/cpuinfo",
                "enable TDX and TME-MT in the BIOS of a machine that has them, use a kernel >= "
                "6.16 and see dmesg for virt/tdx");
}

Result<void> check_tdx_parameter(const HostRoot& root) {
    const auto text = read_file(root.path(module_parameter), 64);
    if (text && text->starts_with('Y'))
        return {};
    if (!text && text.error().code != ErrorCode::not_found)
        return tl::unexpected<Error>(text.error());
    return fail(ErrorCode::unsupported,
                text ? fmt::format("{} is not Y", module_parameter)
                     : fmt::format("{} does not exist", module_parameter),
                "boot with kvm_intel.tdx=1, with a kernel >= 6.16");
}

Result<void> check_tdx_vms(const HostRoot& root, const VmTypesQuery& query) {
    const auto types = query(root.path("/dev/kvm"));
    if (!types && types.error().code == ErrorCode::not_found)
        return fail(ErrorCode::unsupported, "/dev/kvm does not exist",
                    "load the module: modprobe kvm_intel");
    if (!types)
        return tl::unexpected<Error>(types.error());
    if ((*types >> kvm_x86_tdx_vm & 1U) != 0)
        return {};
    return fail(ErrorCode::unsupported,
                fmt::format("KVM offers no TDX VMs (bit {} of its VM types {:#x} is clear)",
                            kvm_x86_tdx_vm, *types),
                "use a kernel >= 6.16 with kvm_intel.tdx=1 and see dmesg for virt/tdx");
}

Result<unsigned> query_kvm_vm_types(const std::string& kvm_device) {
    const UniqueFd device(::open(kvm_device.c_str(), O_RDWR | O_CLOEXEC));
    if (!device)
        return fail_errno(fmt::format("Cannot open {}", kvm_device), errno);
    const int types = ::ioctl(device.get(), KVM_CHECK_EXTENSION, kvm_cap_vm_types);
    if (types < 0)
        return fail_errno(fmt::format("Cannot ask {} for its VM types", kvm_device), errno);
    return static_cast<unsigned>(types);
}

Result<void> check_tdx(const HostRoot& root, const VmTypesQuery& query) {
    std::string missing;
    for (const auto& fact :
         {check_tdx_processor(root), check_tdx_parameter(root), check_tdx_vms(root, query)})
        if (!fact)
            missing += (missing.empty() ? "" : "; ") + fact.error().message;
    if (missing.empty())
        return {};
    return fail(
        ErrorCode::unsupported, fmt::format("This host cannot start a TDX guest: {}", missing),
        "enable TDX and TME-MT in the BIOS, use a kernel >= 6.16 with kvm_intel.tdx=1 and "
        "see dmesg for virt/tdx; or take --tee none for a VM without protection, which this "
        "host can read");
}

} // namespace host_runner::host

// SPDX-License-Identifier: Apache-2.0
#include "host_runner/host/accelerator.hpp"

#include <cerrno>
#include <cstring>

#include <fcntl.h>

#include <fmt/format.h>

#include "host_runner/base/unique_fd.hpp"
#include "host_runner/host/cpu_flags.hpp"

namespace host_runner::host {

Result<std::string> find_virtualisation(const HostRoot& root) {
    HR_TRY(const auto flags, read_cpu_flags(root));
    for (const auto* flag : {"vmx", "svm"})
        if (flags.contains(flag))
            return std::string(flag);
    return fail(ErrorCode::unsupported,
                "the processor has no hardware virtualisation (neither vmx nor svm among the "
                "flags in /proc/cpuinfo)",
                "switch it on in the BIOS, or nested virtualisation in the host above");
}

Result<void> check_kvm_device(const HostRoot& root) {
    const UniqueFd device(::open(root.path("/dev/kvm").c_str(), O_RDWR | O_CLOEXEC));
    if (device)
        return {};
    const int saved_errno = errno;
    if (saved_errno == ENOENT)
        return fail(ErrorCode::unsupported, "/dev/kvm does not exist",
                    "load the module: modprobe kvm_intel, or modprobe kvm_amd");
    if (saved_errno == EACCES || saved_errno == EPERM)
        return fail(ErrorCode::permission_denied, "/dev/kvm may not be opened by this user",
                    "add the user to the group kvm (usermod -aG kvm USER, then log in again)");
    return fail(ErrorCode::unsupported,
                fmt::format("/dev/kvm does not open: {}", std::strerror(saved_errno)),
                "see the kernel's log for kvm: dmesg | grep -i kvm");
}

namespace {

/// Why KVM cannot be used, with the remedy; or the flag that shows it can.
Result<std::string> find_kvm(const HostRoot& root) {
    HR_TRY(auto flag, find_virtualisation(root));
    HR_CHECK(check_kvm_device(root));
    return flag;
}

} // namespace

std::string_view to_string(AcceleratorKind kind) noexcept {
    return kind == AcceleratorKind::kvm ? "kvm" : "tcg";
}

Result<AcceleratorDecision> choose_accelerator(spec::AcceleratorChoice choice,
                                               const HostRoot& root) {
    if (choice == spec::AcceleratorChoice::tcg)
        return AcceleratorDecision{AcceleratorKind::tcg, "TCG (software emulation): as asked for"};
    const auto flag = find_kvm(root);
    if (flag)
        return AcceleratorDecision{
            AcceleratorKind::kvm,
            fmt::format("KVM: the processor has {} and /dev/kvm opens", *flag)};
    if (choice == spec::AcceleratorChoice::kvm)
        return fail(flag.error().code, fmt::format("KVM cannot be used: {}", flag.error().message),
                    fmt::format("{}; or --accel tcg for software emulation", flag.error().hint));
    return AcceleratorDecision{
        AcceleratorKind::tcg,
        fmt::format("TCG (software emulation, slow): {}", flag.error().message)};
}

} // namespace host_runner::host

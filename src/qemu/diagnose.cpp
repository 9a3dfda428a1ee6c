// SPDX-License-Identifier: Apache-2.0
#include "host_runner/qemu/diagnose.hpp"

#include <algorithm>
#include <array>
#include <cctype>

namespace host_runner::qemu {

namespace {

struct Row {
    std::string_view pattern; ///< Parts of the line in this order, '*' between them; any case.
    std::string_view meaning;
    std::string_view remedy;
};

// The first row that fits wins, so the special ones come first. The texts are those of QEMU 7.2 to
// 11.1 (target/i386/kvm/tdx.c, accel/kvm, hw/vfio, net/slirp.c, system/vl.c), of older TDX forks,
// and of the guest's and the firmware's last words.
constexpr std::array rows{
    // TDX
    Row{"does not accept value 'tdx-guest'", "This QEMU cannot start a TD",
        "use QEMU 10.1 or newer (--qemu PATH); an upgrade of the distribution may have replaced "
        "a QEMU that could"},
    Row{"vm-type tdx not supported by KVM", "KVM has TDX switched off on this host",
        "enable TDX and TME-MT in the BIOS, use a kernel from 6.16 on with kvm_intel.tdx=1, and "
        "see `dmesg | grep virt/tdx`"},
    Row{"for tdx-guest: KVM required", "A TD needs KVM, this VM was started without",
        "use --accel kvm"},
    Row{"KVM_TDX_CAPABILITIES failed",
        "The kernel and this QEMU do not speak the same TDX interface",
        "use QEMU 10.1 or newer with a kernel from 6.16 on"},
    Row{"KVM_TDX_INIT_VM failed", "KVM refused the TD's attributes, features or CPUID",
        "update the TDX module; the QEMU options are host_runner's own, so please report it if "
        "that does not help"},
    Row{"Hardware RNG * is busy", "The processor's random number generator is exhausted",
        "try again later"},
    Row{"KVM_TDX_INIT_MEM_REGION failed", "The firmware could not be added to the TD",
        "free memory on the host, and check the firmware (host_runner image verify)"},
    Row{"Failed to accept memory", "The firmware could not be added to the TD",
        "free memory on the host, and check the firmware (host_runner image verify)"},
    Row{"unknown exit", "The TDX module is too old for this kernel", "update the TDX module"},
    Row{"doesn't support SMM", "The machine options do not fit a TD", "please report this bug"},
    Row{"support PIC", "The machine options do not fit a TD", "please report this bug"},
    Row{"kernel_irqchip to be split", "The machine options do not fit a TD",
        "please report this bug"},
    Row{"Named cpu model", "A TD takes the host's processor model only", "please report this bug"},
    Row{"physical bits * to match host", "A TD takes the host's address width only",
        "please report this bug"},
    Row{"Invalid attributes", "A TD attribute is not allowed here (DEBUG never is)",
        "update the TDX module, or report this bug"},
    Row{"unsupported TD attribute bits", "A TD attribute is not allowed here (DEBUG never is)",
        "update the TDX module, or report this bug"},
    Row{"Invalid XFAM", "A processor feature is not allowed in a TD here",
        "update the TDX module, or report this bug"},
    Row{"Invalid TSC",
        "The host's time stamp counter does not fit a TD (100 MHz to 10 GHz, a "
        "multiple of 25 MHz)",
        "use a newer kernel"},
    Row{"core crystal clock", "KVM is too old to set the TD's clock", "use a newer kernel"},
    Row{"APIC_BUS_CYCLES_NS", "KVM is too old to set the TD's clock", "use a newer kernel"},
    Row{"sha384 digest was * expected 48 bytes",
        "mrconfigid, mrowner or mrownerconfig has the wrong length", "please report this bug"},
    Row{"TD_HOB location", "The firmware is no TDX firmware, or the wrong one",
        "check the image (host_runner image verify)"},
    Row{"Unsupported TDVF section", "The firmware is no TDX firmware, or the wrong one",
        "check the image (host_runner image verify)"},
    Row{"parse TDVF", "The firmware is no TDX firmware, or the wrong one",
        "check the image (host_runner image verify)"},
    Row{"get-quote: failed", "QEMU cannot reach the quote generation service",
        "check that qgsd runs and that --qgs names its socket (vsock:2:4050, or a unix socket that "
        "QEMU's user may open)"},
    Row{"QGS error code: 0x12001", "The quote generation service has no PCK certificate",
        "correct the PCCS in /etc/sgx_default_qcnl.conf and restart qgsd"},
    Row{"REPORT_FATAL_ERROR", "The guest gave up; its message is in the line",
        "see the serial log (host_runner logs ID serial)"},
    Row{"cpus are not resettable, terminating", "The guest rebooted, which a TD cannot",
        "use --restart on-failure to start it anew"},
    // KVM
    Row{"failed to initialize kvm: Permission denied", "This user may not use /dev/kvm",
        "add the user to the group kvm, and log in again"},
    Row{"failed to initialize kvm: No such file", "This host has no /dev/kvm",
        "load the module (modprobe kvm_intel or kvm_amd) and check that virtualisation is on in "
        "the BIOS, or use --tee none --accel tcg"},
    Row{"failed to initialize kvm: Inappropriate ioctl",
        "The kernel and this QEMU do not speak the same TDX interface",
        "use QEMU 10.1 or newer with a kernel from 6.16 on"},
    // GPUs
    Row{"does not accept value 'iommufd'", "This QEMU has no iommufd, which GPUs need",
        "use QEMU 9.0 or newer (--qemu PATH)"},
    Row{"/dev/iommu does not exist", "This kernel has no iommufd, which GPUs need",
        "use a kernel with CONFIG_IOMMUFD, and load the module (modprobe iommufd)"},
    Row{"Failed to open /dev/vfio/devices/",
        "A GPU is not bound to vfio-pci, or this user may not open it",
        "bind it to vfio-pci, and check the rights of /dev/vfio/devices"},
    Row{"no such host device", "There is no PCI device with that address",
        "see `lspci -D` for the addresses of this host"},
    Row{"group * not viable", "Another device of the GPU's IOMMU group is not on vfio-pci",
        "bind every device of the group to vfio-pci"},
    Row{"VFIO_MAP_DMA failed", "The VM's memory could not be mapped for a GPU",
        "use QEMU 9.0 or newer and a kernel with iommufd, and check the limit of locked memory "
        "(ulimit -l)"},
    Row{"Address space limit * phys-bits too low",
        "The window for PCI devices is larger than the processor's address space",
        "use fewer GPUs, or a host with more physical address bits"},
    // Memory
    Row{"unable to map backing store for guest RAM", "Too few hugepages are free on that NUMA node",
        "see /sys/devices/system/node/node*/hugepages/hugepages-*/free_hugepages, and reserve "
        "more or use less --memory"},
    Row{"cannot bind memory to host NUMA nodes", "There is no such NUMA node on this host",
        "see `numactl --hardware`"},
    Row{"cannot set up guest memory", "The host has too little free memory for this VM",
        "use less --memory, or stop other VMs"},
    // Channels, network, disks
    Row{"unable to set guest cid: Address already in use", "The vsock CID is taken by another VM",
        "try again"},
    Row{"failed to open vhost device", "This host has no vsock for VMs (/dev/vhost-vsock)",
        "load the module (modprobe vhost_vsock)"},
    Row{"Could not open '/dev/vhost-vsock'", "This host has no vsock for VMs (/dev/vhost-vsock)",
        "load the module (modprobe vhost_vsock)"},
    Row{"Could not set up host forwarding rule", "A host port is taken by another program",
        "choose another host port, or 0 for a free one"},
    Row{"Failed to get \"write\" lock", "A disk of this VM is used by another process",
        "stop the other process (fuser shows it)"},
    Row{"Could not open * Permission denied", "QEMU may not open a file of this VM",
        "check the rights of the file named in the line, and of the folders above it"},
};

/// Said by healthy VMs too: features that the host's processor, TCG or TDX lacks or sets.
constexpr std::array<std::string_view, 2> ignorable{
    "doesn't support requested feature",
    "forcibly sets the feature",
};

char lower(char c) {
    return static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
}

/// The position behind `part` in `line` from `start` on; npos when it is not there.
std::size_t find_after(std::string_view line, std::size_t start, std::string_view part) {
    const auto found =
        std::search(line.begin() + static_cast<std::ptrdiff_t>(start), line.end(), part.begin(),
                    part.end(), [](char a, char b) { return lower(a) == lower(b); });
    return found == line.end() ? std::string_view::npos
                               : static_cast<std::size_t>(found - line.begin()) + part.size();
}

bool matches(std::string_view line, std::string_view pattern) {
    std::size_t position = 0;
    while (!pattern.empty()) {
        const auto end = std::min(pattern.find('*'), pattern.size());
        position = find_after(line, position, pattern.substr(0, end));
        if (position == std::string_view::npos)
            return false;
        pattern.remove_prefix(std::min(end + 1, pattern.size()));
    }
    return true;
}

bool is_relevant(std::string_view line) {
    return line.find_first_not_of(" \t") != std::string_view::npos &&
           std::none_of(ignorable.begin(), ignorable.end(),
                        [&](std::string_view part) { return matches(line, part); });
}

/// Takes the first line off `text`.
std::string_view take_line(std::string_view& text) {
    const auto end = std::min(text.find('\n'), text.size());
    auto line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.ends_with('\r'))
        line.remove_suffix(1);
    return line;
}

} // namespace

std::optional<Diagnosis> diagnose(std::string_view stderr_text) {
    while (!stderr_text.empty()) {
        const auto line = take_line(stderr_text);
        if (!is_relevant(line))
            continue;
        const auto* row = std::find_if(rows.begin(), rows.end(), [&](const Row& candidate) {
            return matches(line, candidate.pattern);
        });
        if (row != rows.end())
            return Diagnosis{std::string(row->meaning), std::string(row->remedy),
                             std::string(line)};
    }
    return std::nullopt;
}

std::string last_relevant_line(std::string_view stderr_text) {
    std::string_view last;
    while (!stderr_text.empty())
        if (const auto line = take_line(stderr_text); is_relevant(line))
            last = line;
    return std::string(last);
}

} // namespace host_runner::qemu

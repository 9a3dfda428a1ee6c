// SPDX-License-Identifier: Apache-2.0
#include "host_runner/instance/doctor.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <iterator>

#include <unistd.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "host_runner/base/files.hpp"
#include "host_runner/base/units.hpp"
#include "host_runner/host/accelerator.hpp"
#include "host_runner/host/cgroup.hpp"
#include "host_runner/host/collateral_service.hpp"
#include "host_runner/host/disk_space.hpp"
#include "host_runner/host/gpu.hpp"
#include "host_runner/host/iommu.hpp"
#include "host_runner/host/memory.hpp"
#include "host_runner/host/numa.hpp"
#include "host_runner/host/ports.hpp"
#include "host_runner/host/tap.hpp"
#include "host_runner/host/vsock.hpp"
#include "host_runner/image/tdvf.hpp"
#include "host_runner/instance/delivery.hpp"
#include "host_runner/instance/plan.hpp"
#include "host_runner/net/http_client.hpp"
#include "qemu_account.hpp"

namespace host_runner::instance {

namespace {

/// Somebody on this machine answers at once; PCCS may be elsewhere.
constexpr std::chrono::milliseconds connect_timeout{2'000};
/// dstack's enclave; stock guests trust nobody else.
constexpr std::uint16_t enclave_port = 3443;
constexpr std::string_view qgs_socket = "/var/run/tdx-qgs/qgs.socket";
/// Of the daemon for QEMU alone, and of the one for everything.
constexpr std::array<std::string_view, 2> libvirt_sockets{"/run/libvirt/virtqemud-sock",
                                                          "/run/libvirt/libvirt-sock"};
/// QEMU has one for each forwarded connection, and some thirty of its own.
constexpr std::uint64_t usual_open_files = 1024;

enum class Need { none, useful, required };

struct Observation {
    std::string text;
    std::string advice = {}; ///< Not empty: it is there, but not as it should be.
};

struct Requirement {
    std::string_view name;
    std::string_view purpose; ///< What needs it, for those who do not.
    Need (*need)(const Needs&);
    Result<Observation> (*look)(const Needs&, const HostEdges&);
};

Need required_if(bool condition) {
    return condition ? Need::required : Need::none;
}
Need useful_if(bool condition) {
    return condition ? Need::useful : Need::none;
}
Need need_of_kvm(const Needs& needs) {
    if (needs.tdx || needs.accelerator == spec::AcceleratorChoice::kvm)
        return Need::required;
    return useful_if(needs.accelerator == spec::AcceleratorChoice::automatic);
}
Need need_of_tdx(const Needs& needs) {
    return required_if(needs.tdx);
}
Need need_of_gpus(const Needs& needs) {
    return required_if(needs.gpus);
}
Need always(const Needs& /*needs*/) {
    return Need::required;
}

template <typename T>
Result<Observation> seen(const Result<T>& result, std::string text) {
    if (!result)
        return tl::unexpected<Error>(result.error());
    return Observation{std::move(text)};
}

// --- the processor, KVM and QEMU ---------------------------------------------------------------

Result<Observation> look_at_virtualisation(const Needs& /*needs*/, const HostEdges& edges) {
    HR_TRY(const auto flag, host::find_virtualisation(edges.root));
    return Observation{fmt::format("the processor has {}", flag)};
}

/// What the kernel answers the account that QEMU runs as.
template <typename Look>
auto as_qemu(const Needs& needs, const HostEdges& edges, const Look& look) -> decltype(look()) {
    HR_TRY(const auto account, edges.qemu_account(needs));
    if (!account)
        return look();
    HR_TRY(const auto as_account, host::ScopedAccount::enter(*account));
    return look();
}

Result<Observation> look_at_kvm(const Needs& needs, const HostEdges& edges) {
    return seen(as_qemu(needs, edges, [&] { return host::check_kvm_device(edges.root); }),
                "/dev/kvm opens");
}

Result<Observation> look_at_tdx_processor(const Needs& /*needs*/, const HostEdges& edges) {
    return seen(host::check_tdx_processor(edges.root), "the processor has tdx_host_platform");
}

Result<Observation> look_at_tdx_parameter(const Needs& /*needs*/, const HostEdges& edges) {
    return seen(host::check_tdx_parameter(edges.root), "kvm_intel has tdx=Y");
}

Result<Observation> look_at_tdx_vms(const Needs& /*needs*/, const HostEdges& edges) {
    return seen(host::check_tdx_vms(edges.root, edges.vm_types), "KVM offers TDX VMs");
}

Result<Observation> look_at_qemu(const Needs& needs, const HostEdges& edges) {
    HR_TRY(const auto qemu, edges.probe_qemu(needs.qemu_program));
    return Observation{fmt::format("{} {}", qemu.path, qemu.version)};
}

Result<Observation> look_at_qemu_account(const Needs& needs, const HostEdges& edges) {
    if (needs.libvirt)
        return Observation{"libvirt runs QEMU as this user"};
    HR_TRY(const auto account, edges.qemu_account(needs));
    if (account) {
        HR_TRY(const auto qemu, edges.probe_qemu(needs.qemu_program));
        HR_CHECK(check_account_can_run(*account, qemu.path, needs.image_files));
        return Observation{fmt::format("QEMU runs as {}", account->name)};
    }
    if (!edges.is_root)
        return Observation{"QEMU runs as this user"};
    Observation observation{"QEMU runs as root"};
    if (needs.user.empty())
        observation.advice =
            fmt::format("make the account {}, as the Debian package does (useradd --system --shell "
                        "/usr/sbin/nologin {}), and QEMU runs as that",
                        default_qemu_account, default_qemu_account);
    return observation;
}

Result<Observation> look_at_qemu_tdx(const Needs& needs, const HostEdges& edges) {
    HR_TRY(const auto qemu, edges.probe_qemu(needs.qemu_program));
    if (!qemu.tdx_guest)
        return fail(ErrorCode::unsupported,
                    fmt::format("QEMU {} has no tdx-guest object", qemu.version),
                    "use QEMU 10.1 or newer (--qemu PATH)");
    if (!qemu.tdx_quote_socket)
        return Observation{fmt::format("QEMU {} has tdx-guest", qemu.version),
                           "its tdx-guest takes no quote-generation-socket: guests get no quotes "
                           "through it"};
    return Observation{fmt::format("QEMU {} has tdx-guest", qemu.version)};
}

Result<Observation> look_at_firmware(const Needs& needs, const HostEdges& /*edges*/) {
    if (!needs.firmware)
        return fail(ErrorCode::not_found, "No image was named, so its firmware was not looked at",
                    "name one with -i");
    return seen(image::check_tdvf(*needs.firmware),
                fmt::format("{} has TDX metadata", *needs.firmware));
}

// --- quotes and keys ---------------------------------------------------------------------------

Result<Observation> look_at_quote_service(const Needs& needs, const HostEdges& edges) {
    const auto address = needs.qgs.value_or(spec::QgsAddress{});
    const auto name = spec::format_qgs_address(address);
    const auto connection = as_qemu(needs, edges, [&] {
        return address.unix_path.empty() ? edges.connect_vsock(address.cid, address.port)
                                         : edges.connect_unix(edges.root.path(address.unix_path));
    });
    if (connection)
        return Observation{fmt::format("{} answers", name)};
    std::string remedy = "install and start Intel's quote generation service (package "
                         "tdx-qgs, systemctl start qgsd) and see its port in /etc/qgs.conf";
    if (!needs.qgs && path_exists(edges.root.path(qgs_socket)))
        remedy = fmt::format("it has a socket: try --qgs unix:{}", qgs_socket);
    return fail(ErrorCode::unavailable,
                fmt::format("{} does not answer: {}", name, connection.error().message), remedy);
}

Result<Observation> look_at_collateral(const Needs& /*needs*/, const HostEdges& edges) {
    HR_TRY(const auto service, host::read_collateral_service(edges.root));
    if (const auto connection = edges.connect_tcp(service.host, service.port); !connection)
        return fail(ErrorCode::unavailable,
                    fmt::format("{} does not answer: {}", service.url, connection.error().message),
                    "start the certificate service (PCCS) there, or name another in "
                    "/etc/sgx_default_qcnl.conf and restart qgsd");
    return Observation{fmt::format("{} answers", service.url)};
}

Result<Observation> look_at_enclave(const Needs& /*needs*/, const HostEdges& edges) {
    if (const auto connection = edges.connect_tcp("127.0.0.1", enclave_port); !connection)
        return fail(ErrorCode::unavailable,
                    fmt::format("Nobody answers on 127.0.0.1:{}: {}", enclave_port,
                                connection.error().message),
                    "start the SGX key provider of dstack's guests, or choose another with "
                    "--key-provider");
    return Observation{fmt::format("127.0.0.1:{} answers", enclave_port)};
}

// --- devices -----------------------------------------------------------------------------------

Result<Observation> look_at_vsock(const Needs& /*needs*/, const HostEdges& edges) {
    return seen(host::VhostVsock(edges.root).open(), "/dev/vhost-vsock opens");
}

Result<Observation> look_at_iommu(const Needs& /*needs*/, const HostEdges& edges) {
    HR_TRY(const auto names, host::find_iommus(edges.root));
    return Observation{fmt::format("{}", fmt::join(names, ", "))};
}

Result<Observation> look_at_iommufd(const Needs& /*needs*/, const HostEdges& edges) {
    return seen(host::check_iommufd(edges.root), "/dev/iommu opens");
}

Result<Observation> look_at_vfio(const Needs& /*needs*/, const HostEdges& edges) {
    return seen(host::check_vfio_pci(edges.root), "the driver vfio-pci is there");
}

// --- memory and processors ---------------------------------------------------------------------

Result<Observation> look_at_numa(const Needs& /*needs*/, const HostEdges& edges) {
    HR_TRY(const auto nodes, host::read_numa_nodes(edges.root));
    if (nodes.empty())
        return fail(ErrorCode::unsupported, "The kernel has no NUMA support",
                    "use a kernel with CONFIG_NUMA");
    std::vector<std::string> words;
    for (const auto& node : nodes)
        words.push_back(fmt::format("node {}: {} CPUs, {} free of {}", node.node, node.cpus.size(),
                                    format_size_rounded(node.free_bytes),
                                    format_size_rounded(node.total_bytes)));
    return Observation{fmt::format("{}", fmt::join(words, "; "))};
}

Result<Observation> look_at_hugepages(const Needs& /*needs*/, const HostEdges& edges) {
    HR_TRY(const auto pools, host::read_hugepage_pools(edges.root));
    std::vector<std::string> words;
    for (const auto& pool : pools)
        if (pool.total_pages > 0)
            words.push_back(fmt::format("node {}: {} of {} pages of {} free", pool.node,
                                        pool.free_pages, pool.total_pages,
                                        format_size(pool.page_bytes)));
    if (words.empty())
        return fail(ErrorCode::resource_exhausted, "No hugepages are set aside",
                    "sysctl vm.nr_hugepages=N for pages of 2 MiB; those of 1 GiB best at boot, "
                    "with hugepagesz=1G hugepages=N");
    return Observation{fmt::format("{}", fmt::join(words, "; "))};
}

Result<Observation> look_at_hugetlbfs(const Needs& /*needs*/, const HostEdges& edges) {
    std::vector<std::string> words;
    for (const auto page_bytes : {2 * mib, gib})
        if (const auto path =
                host::find_hugepage_mount(page_bytes, edges.root, edges.file_system_type))
            words.push_back(fmt::format("{} for pages of {}", *path, format_size(page_bytes)));
        else if (words.empty() && page_bytes == gib)
            return tl::unexpected<Error>(path.error());
    return Observation{fmt::format("{}", fmt::join(words, ", "))};
}

Result<Observation> look_at_memory(const Needs& needs, const HostEdges& edges) {
    HR_TRY(const auto memory, host::read_memory(edges.root));
    Observation observation{fmt::format("{} available of {}",
                                        format_size_rounded(memory.available_bytes),
                                        format_size_rounded(memory.total_bytes))};
    if (!needs.memory_bytes)
        return observation;
    const auto tee = needs.tdx ? spec::Tee::tdx : spec::Tee::none;
    HR_TRY(const auto warning, host::assess_memory(*needs.memory_bytes, memory, tee));
    observation.advice = warning.value_or("");
    return observation;
}

Result<Observation> look_at_locked_memory(const Needs& needs, const HostEdges& edges) {
    const auto limit = edges.limits().locked_memory_bytes;
    if (!limit)
        return Observation{"no limit"};
    const auto needed = needs.memory_bytes.value_or(gib);
    if (*limit < needed)
        return fail(ErrorCode::resource_exhausted,
                    fmt::format("This process may lock {} of memory, and a VM of {} with devices "
                                "locks all of its own",
                                format_size_rounded(*limit), format_size(needed)),
                    "ulimit -l unlimited, memlock in /etc/security/limits.conf, or in a unit "
                    "LimitMEMLOCK=infinity");
    return Observation{fmt::format("up to {}", format_size_rounded(*limit))};
}

Result<Observation> look_at_open_files(const Needs& /*needs*/, const HostEdges& edges) {
    const auto limit = edges.limits().open_files;
    if (!limit)
        return Observation{"no limit"};
    Observation observation{fmt::format("up to {}", *limit)};
    if (*limit < usual_open_files)
        observation.advice = fmt::format("each forwarded connection takes one: ulimit -n {} or "
                                         "more, in a unit LimitNOFILE",
                                         usual_open_files);
    return observation;
}

Result<Observation> look_at_disk(const Needs& needs, const HostEdges& /*edges*/) {
    HR_TRY(const auto free, host::free_disk_bytes(needs.directory));
    Observation observation{
        fmt::format("{} free in {}", format_size_rounded(free), needs.directory)};
    if (!needs.disk_bytes)
        return observation;
    HR_TRY(const auto warning,
           host::warn_disk_space(needs.directory, *needs.disk_bytes, "the data disk"));
    observation.advice = warning.value_or("");
    return observation;
}

Result<Observation> look_at_cgroup(const Needs& /*needs*/, const HostEdges& edges) {
    const auto delegated = host::find_delegated_cgroup(edges.root);
    if (delegated)
        return seen(host::check_cgroup_limits(*delegated),
                    fmt::format("each VM gets one below {}", *delegated));
    if (host::is_systemd_running(edges.root))
        return Observation{"systemd gives each VM a scope"};
    return fail(
        ErrorCode::unsupported, delegated.error().message,
        "nothing limits what a VM's QEMU takes of this host's memory and threads; run it as "
        "a systemd unit with Delegate=memory pids");
}

// --- other programs ----------------------------------------------------------------------------

Result<Observation> look_at_libvirt(const Needs& /*needs*/, const HostEdges& edges) {
    if (edges.ask_libvirt) {
        HR_TRY(auto answer, edges.ask_libvirt());
        return Observation{std::move(answer)};
    }
    std::string why;
    for (const auto path : libvirt_sockets) {
        if (const auto connection = edges.connect_unix(edges.root.path(path)))
            return Observation{fmt::format("{} answers", path)};
        else
            why = connection.error().message;
    }
    return fail(ErrorCode::unavailable, fmt::format("No libvirt daemon answers: {}", why),
                "install it (apt install libvirt-daemon-system) and be in the group libvirt");
}

Result<Observation> look_at_user_network(const Needs& /*needs*/, const HostEdges& edges) {
    auto path = edges.find_user_network();
    if (path.empty())
        return fail(ErrorCode::not_found,
                    "The program user_network is not beside this host_runner "
                    "(lib/host-runner/user_network)",
                    "install host_runner as a whole, and libslirp (libslirp0)");
    return Observation{std::move(path)};
}

Result<Observation> look_at_passt(const Needs& /*needs*/, const HostEdges& edges) {
    auto passt = edges.find_passt();
    if (passt.path.empty())
        return fail(ErrorCode::not_found, "There is no program passt in PATH",
                    "install it (apt install passt)");
    if (!passt.problem.empty())
        return fail(ErrorCode::unsupported,
                    fmt::format("{} is not used: {}", passt.path, passt.problem),
                    "install a newer one; user_network does the same");
    return Observation{fmt::format("{} is fit", passt.path)};
}

Result<Observation> look_at_bridge(const Needs& needs, const HostEdges& edges) {
    if (needs.bridge.empty())
        return fail(ErrorCode::not_found, "No bridge was named, so none was looked at");
    HR_CHECK(edges.check_bridge(needs.bridge));
    return Observation{fmt::format("{} takes a tap of this user", needs.bridge)};
}

/// Without it QEMU's own network would do, and show the guest the host's loopback.
Need need_of_user_network(const Needs& needs) {
    if (needs.host_services || needs.user_network == spec::UserNetwork::slirp)
        return Need::required;
    return useful_if(needs.egress && needs.user_network == spec::UserNetwork::automatic);
}

constexpr std::string_view confidential_vms = "confidential VMs (--tee tdx)";
constexpr std::string_view vms_with_gpus = "VMs with GPUs (--gpus)";

constexpr auto requirements = std::to_array<Requirement>({
    {"virtualisation", "fast VMs", need_of_kvm, look_at_virtualisation},
    {"kvm", "fast VMs", need_of_kvm, look_at_kvm},
    {"tdx-processor", confidential_vms, need_of_tdx, look_at_tdx_processor},
    {"tdx-parameter", confidential_vms, need_of_tdx, look_at_tdx_parameter},
    {"tdx-vms", confidential_vms, need_of_tdx, look_at_tdx_vms},
    {"qemu", "", always, look_at_qemu},
    {"qemu-user", "", always, look_at_qemu_account},
    {"qemu-tdx", confidential_vms, need_of_tdx, look_at_qemu_tdx},
    {"firmware", confidential_vms,
     [](const Needs& needs) { return required_if(needs.tdx && needs.firmware.has_value()); },
     look_at_firmware},
    {"quote-service", "quotes of confidential VMs",
     [](const Needs& needs) { return useful_if(needs.tdx); }, look_at_quote_service},
    {"collateral", "quotes of confidential VMs",
     [](const Needs& needs) { return useful_if(needs.tdx); }, look_at_collateral},
    {"key-provider", "dstack images with --key-provider local",
     [](const Needs& needs) { return useful_if(needs.enclave_key_provider); }, look_at_enclave},
    {"vhost-vsock", "dstack images",
     [](const Needs& needs) { return useful_if(needs.dstack_guest); }, look_at_vsock},
    {"iommu", vms_with_gpus, need_of_gpus, look_at_iommu},
    {"iommufd", vms_with_gpus, need_of_gpus, look_at_iommufd},
    {"vfio-pci", vms_with_gpus, need_of_gpus, look_at_vfio},
    {"numa", "--pin-numa", [](const Needs& needs) { return required_if(needs.numa); },
     look_at_numa},
    {"hugepages", "--hugepage", [](const Needs& needs) { return required_if(needs.hugepages); },
     look_at_hugepages},
    {"hugetlbfs", "--hugepage", [](const Needs& needs) { return required_if(needs.hugepages); },
     look_at_hugetlbfs},
    {"memory", "", always, look_at_memory},
    {"locked-memory", vms_with_gpus, need_of_gpus, look_at_locked_memory},
    {"open-files", "", always, look_at_open_files},
    {"disk", "", always, look_at_disk},
    {"cgroup", "", [](const Needs&) { return Need::useful; }, look_at_cgroup},
    {"libvirt", "--backend libvirt", [](const Needs& needs) { return required_if(needs.libvirt); },
     look_at_libvirt},
    {"user-network",
     "--host-service, and --egress on without showing the guest this host's loopback",
     need_of_user_network, look_at_user_network},
    {"passt", "--net user=passt",
     [](const Needs& needs) { return required_if(needs.user_network == spec::UserNetwork::passt); },
     look_at_passt},
    {"bridge", "--net bridge=NAME",
     [](const Needs& needs) { return required_if(!needs.bridge.empty()); }, look_at_bridge},
});

Finding finding_of(const Requirement& requirement, const Needs& needs, const HostEdges& edges) {
    Finding finding{requirement.name, Verdict::pass, {}, {}};
    auto seen = requirement.look(needs, edges);
    if (seen) {
        finding.found = std::move(seen->text);
        finding.remedy = std::move(seen->advice);
        if (!finding.remedy.empty())
            finding.verdict = Verdict::warn;
        return finding;
    }
    finding.found = std::move(seen.error().message);
    finding.remedy = std::move(seen.error().hint);
    switch (requirement.need(needs)) {
    case Need::required:
        finding.verdict = Verdict::fail;
        break;
    case Need::useful:
        finding.verdict = Verdict::warn;
        break;
    case Need::none:
        finding.verdict = Verdict::not_needed;
        finding.found += fmt::format("; needed only for {}", requirement.purpose);
        break;
    }
    return finding;
}

/// A line for each GPU and NVSwitch of the host that a VM could have.
void add_gpus(const Needs& needs, const HostEdges& edges, std::vector<Finding>& findings) {
    const auto gpus = host::list_gpus(edges.root);
    if (!gpus || gpus->empty()) {
        Finding none{"gpu", needs.gpus ? Verdict::fail : Verdict::not_needed,
                     gpus ? "This host has no GPU" : gpus.error().message,
                     "plug one in, or leave --gpus out"};
        if (!needs.gpus)
            none.found += fmt::format("; needed only for {}", vms_with_gpus);
        findings.push_back(std::move(none));
        return;
    }
    for (const auto& gpu : *gpus) {
        const auto& device = gpu.pci;
        std::uint64_t largest = 0;
        for (const auto& bar : device.bars)
            largest = std::max(largest, bar.size_bytes);
        Finding finding{
            "gpu",
            Verdict::pass,
            fmt::format("{} {}: driver {}, IOMMU group {}, NUMA node {}, largest BAR {}",
                        spec::format_pci_address(device.address), gpu.model,
                        device.driver.empty() ? "none" : device.driver,
                        device.iommu_group ? std::to_string(*device.iommu_group) : "-",
                        device.numa_node ? std::to_string(*device.numa_node) : "-",
                        format_size(largest)),
            {}};
        // For the others the run's own selection decides.
        if (const auto selected = host::select_gpus({device.address}, edges.root); !selected) {
            finding.verdict = needs.gpus ? Verdict::warn : Verdict::not_needed;
            finding.found += "; " + selected.error().message;
            finding.remedy = selected.error().hint;
        }
        findings.push_back(std::move(finding));
    }
}

} // namespace

std::string_view to_string(Verdict verdict) noexcept {
    switch (verdict) {
    case Verdict::pass:
        return "pass";
    case Verdict::warn:
        return "warn";
    case Verdict::fail:
        return "fail";
    case Verdict::not_needed:
        return "not_needed";
    }
    return "?";
}

Needs needs_of(const spec::VmSpec& spec, const image::Image* image, bool egress,
               std::string directory) {
    Needs needs;
    needs.tdx = spec.tee == spec::Tee::tdx;
    needs.accelerator = spec.accelerator;
    needs.dstack_guest = image != nullptr && image->guest != image::Guest::host_runner;
    needs.enclave_key_provider =
        needs.tdx && needs.dstack_guest && spec.key_provider.kind == spec::KeyProviderKind::local;
    needs.gpus = spec.all_gpus || !spec.gpus.empty();
    needs.numa = spec.pin_numa;
    needs.hugepages = spec.hugepages;
    needs.egress = egress && spec.network.mode == spec::NetworkMode::user;
    needs.user_network = spec.network.user;
    needs.host_services = !spec.host_services.empty();
    needs.bridge = spec.network.bridge;
    needs.libvirt = spec.backend.libvirt;
    needs.qgs = spec.qgs;
    needs.qemu_program = spec.qemu_path;
    needs.user = spec.user;
    if (image != nullptr) {
        needs.firmware = image->firmware;
        for (const auto& path : {image->kernel, image->initrd, image->firmware.value_or("")})
            if (!path.empty())
                needs.image_files.push_back(path);
        needs.memory_bytes = spec.memory_bytes;
        needs.disk_bytes = spec.disk_bytes;
    }
    needs.directory = std::move(directory);
    return needs;
}

HostEdges real_host(ProcessLauncher& launcher) {
    HostEdges edges;
    edges.connect_unix = [](const std::string& path) {
        return net::connect_unix(path)();
    };
    edges.connect_tcp = [](const std::string& host, std::uint16_t port) {
        return net::connect_tcp(host, port, connect_timeout)();
    };
    edges.connect_vsock = [](std::uint32_t cid, std::uint32_t port) {
        return net::connect_vsock(cid, port)();
    };
    edges.probe_qemu = [&launcher, known = std::optional<Result<qemu::Capabilities>>()](
                           const std::string& program) mutable {
        if (!known)
            known = qemu::probe_capabilities(launcher, program, {});
        return *known;
    };
    edges.is_root = ::geteuid() == 0;
    edges.qemu_account = [](const Needs& needs) {
        return choose_qemu_account(needs.user, need_of_kvm(needs) != Need::none, needs.qgs);
    };
    edges.find_user_network = usernet::find_user_network;
    edges.find_passt = [&launcher] {
        return usernet::find_passt(launcher, {});
    };
    edges.check_bridge = [](const std::string& bridge) {
        host::KernelTaps kernel;
        return host::check_bridge(kernel, bridge);
    };
    return edges;
}

std::vector<Finding> examine(const Needs& needs, const HostEdges& edges) {
    std::vector<Finding> findings;
    for (const auto& requirement : requirements)
        findings.push_back(finding_of(requirement, needs, edges));
    add_gpus(needs, edges, findings);
    return findings;
}

bool has_failed(const std::vector<Finding>& findings) noexcept {
    return std::any_of(findings.begin(), findings.end(),
                       [](const Finding& finding) { return finding.verdict == Verdict::fail; });
}

std::vector<Finding> examine_run(const spec::VmSpec& spec, const Registry& registry,
                                 const HostEdges& edges) {
    std::vector<Finding> findings;
    // What fails is found, and what depends on it is left out.
    const auto found = [&findings](std::string_view name, const auto& result, std::string text) {
        findings.push_back(
            result ? Finding{name, Verdict::pass, std::move(text), {}}
                   : Finding{name, Verdict::fail, result.error().message, result.error().hint});
        return result.has_value();
    };
    bool egress = spec.egress.value_or(false);
    auto image = image::load_image(spec.image_path).and_then([&](image::Image loaded) {
        return image::require_verified(loaded, {}).map([&] { return std::move(loaded); });
    });
    if (found("image", image, fmt::format("{} is whole", spec.image_path))) {
        const auto files = make_guest_files(spec, *image);
        if (found("compose", files,
                  spec.compose_path ? fmt::format("{} can be delivered", *spec.compose_path)
                                    : std::string("no compose file: the VM starts no services"))) {
            egress = wants_egress(spec, *image, *files).value_or(egress);
            std::vector<std::string> ignored;
            for (const auto& mapping : ports_to_forward(spec, files->ports, ignored))
                found("port", host::settle_host_port(mapping, {}, edges.root),
                      fmt::format("{} can be forwarded", spec::format_port_mapping(mapping)));
        }
    }
    if (image && (spec.all_gpus || !spec.gpus.empty())) {
        const auto selection = spec.all_gpus ? host::select_all_gpus(edges.root)
                                             : host::select_gpus(spec.gpus, edges.root);
        found("gpus", selection, "those of the run can be taken");
    }
    if (image && (spec.pin_numa || spec.hugepages)) {
        const auto placement =
            read_host_numa(spec, edges.root, edges.file_system_type)
                .and_then([&](const HostNuma& numa) { return plan_placement(spec, numa); });
        found("placement", placement, placement ? describe(*placement) : std::string());
    }
    const auto needs =
        needs_of(spec, image ? &*image : nullptr, egress, registry.instances_directory());
    auto rest = examine(needs, edges);
    findings.insert(findings.end(), std::make_move_iterator(rest.begin()),
                    std::make_move_iterator(rest.end()));
    return findings;
}

Result<void> require(const Needs& needs, const HostEdges& edges) {
    for (const auto& requirement : requirements)
        if (requirement.need(needs) == Need::required)
            HR_CHECK(requirement.look(needs, edges));
    return {};
}

} // namespace host_runner::instance

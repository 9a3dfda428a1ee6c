// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Whether a host has what a VM needs, a finding for each requirement, each with its remedy.
///
///     const auto edges = real_host(launcher);
///     for (const auto& finding : examine(needs_of(spec, image, directory), edges))
///         ...
///     HR_CHECK(require(needs, edges));   // what `run` does, before it takes anything
///
/// Looks only: nothing is taken, changed or remembered.

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "host_runner/base/error.hpp"
#include "host_runner/base/process.hpp"
#include "host_runner/base/unique_fd.hpp"
#include "host_runner/host/account.hpp"
#include "host_runner/host/host_root.hpp"
#include "host_runner/host/hugepages.hpp"
#include "host_runner/host/limits.hpp"
#include "host_runner/host/tdx.hpp"
#include "host_runner/image/image.hpp"
#include "host_runner/instance/registry.hpp"
#include "host_runner/qemu/capabilities.hpp"
#include "host_runner/spec/vm_spec.hpp"
#include "host_runner/usernet/passt.hpp"

namespace host_runner::instance {

enum class Verdict {
    pass,
    warn,       ///< The VM starts, but not as it should.
    fail,       ///< The VM cannot start.
    not_needed, ///< Not there, and this VM does without it.
};
/// As in JSON output, e.g. "not_needed".
[[nodiscard]] std::string_view to_string(Verdict verdict) noexcept;

struct Finding {
    std::string_view requirement; ///< A name that stays, e.g. "tdx-processor".
    Verdict verdict = Verdict::pass;
    std::string found;  ///< What is there, or what is missing.
    std::string remedy; ///< What to do; empty when there is nothing to do.
    bool operator==(const Finding&) const = default;
};

/// What a VM needs of its host.
struct Needs {
    bool tdx = true;
    spec::AcceleratorChoice accelerator = spec::AcceleratorChoice::automatic;
    bool dstack_guest = false;         ///< Talks to its runner by vsock.
    bool enclave_key_provider = false; ///< A dstack guest with a local key provider.
    bool gpus = false;
    bool numa = false;
    bool hugepages = false;
    bool egress = false;
    spec::UserNetwork user_network = spec::UserNetwork::automatic;
    bool host_services = false;
    std::string bridge;                  ///< Empty: none.
    bool libvirt = false;                ///< It starts QEMU.
    std::optional<spec::QgsAddress> qgs; ///< nullopt: where it usually is.
    std::string qemu_program = "qemu-system-x86_64";
    std::string user = {};                     ///< As --user; empty: chosen by who starts it.
    std::optional<std::string> firmware;       ///< The image's; nullopt: not known.
    std::vector<std::string> image_files;      ///< That QEMU opens by itself; empty: not known.
    std::optional<std::uint64_t> memory_bytes; ///< nullopt: not known.
    std::optional<std::uint64_t> disk_bytes;   ///< The same.
    std::string directory;                     ///< Where instances are kept.
};

/// @param image nullptr: not known; our own then
[[nodiscard]] Needs needs_of(const spec::VmSpec& spec, const image::Image* image, bool egress,
                             std::string directory);

/// The edges to the system.
struct HostEdges {
    host::HostRoot root;
    host::VmTypesQuery vm_types = host::query_kvm_vm_types;
    host::FileSystemType file_system_type = host::file_system_type;
    host::ProcessLimitsQuery limits = host::read_process_limits;
    std::function<Result<UniqueFd>(const std::string& path)> connect_unix;
    std::function<Result<UniqueFd>(const std::string& host, std::uint16_t port)> connect_tcp;
    std::function<Result<UniqueFd>(std::uint32_t cid, std::uint32_t port)> connect_vsock;
    std::function<Result<qemu::Capabilities>(const std::string& program)> probe_qemu;
    std::function<std::string()> find_user_network; ///< As usernet::find_user_network.
    std::function<usernet::Passt()> find_passt;
    std::function<Result<void>(const std::string& bridge)> check_bridge;
    bool is_root = false; ///< This process is root's.
    /// As whom QEMU runs; nullopt: as this process.
    std::function<Result<std::optional<host::Account>>(const Needs&)> qemu_account;
    /// Connects to the libvirt of this VM: "libvirt 9.0.0 at qemu:///system". Empty: a look at the
    /// sockets has to do.
    std::function<Result<std::string>()> ask_libvirt;
};
/// This machine, for VMs with one QEMU, which is asked once. @param launcher borrowed
[[nodiscard]] HostEdges real_host(ProcessLauncher& launcher);

/// All requirements, in the order in which one would mend them.
[[nodiscard]] std::vector<Finding> examine(const Needs& needs, const HostEdges& edges);

[[nodiscard]] bool has_failed(const std::vector<Finding>& findings) noexcept;

/// All of a planned run: its image, compose file and ports before the host's requirements.
[[nodiscard]] std::vector<Finding> examine_run(const spec::VmSpec& spec, const Registry& registry,
                                               const HostEdges& edges);

/// Looks only at what this VM cannot do without. @errors that of the first that is missing
[[nodiscard]] Result<void> require(const Needs& needs, const HostEdges& edges);

} // namespace host_runner::instance

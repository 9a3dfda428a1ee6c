// SPDX-License-Identifier: Apache-2.0
#pragma once

/// What the user asked for, checked, and nothing of what the host is.

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "host_runner/base/error.hpp"
#include "host_runner/base/units.hpp"
#include "host_runner/spec/pci_address.hpp"
#include "host_runner/spec/port_mapping.hpp"

namespace host_runner::spec {

enum class Tee { tdx, none };
enum class AcceleratorChoice { automatic, kvm, tcg };
enum class NetworkMode { user, none, bridge };
/// Who makes the user network's packets into connections of the host.
enum class UserNetwork {
    automatic, ///< The one that lets the guest reach least.
    qemu,      ///< QEMU's own libslirp.
    slirp,     ///< libslirp in the program user_network, confined.
    passt,
};
enum class KeyProviderKind { none, local, relay, kms };
enum class WaitFor { started, ready };

[[nodiscard]] std::string_view to_string(Tee tee) noexcept;
[[nodiscard]] std::string_view to_string(AcceleratorChoice choice) noexcept;
[[nodiscard]] std::string_view to_string(NetworkMode mode) noexcept;
[[nodiscard]] std::string_view to_string(UserNetwork network) noexcept;
[[nodiscard]] std::string_view to_string(KeyProviderKind kind) noexcept;

/// Where QEMU reaches the quote generation service.
struct QgsAddress {
    std::uint32_t cid = 2; ///< vsock; 2 is the host.
    std::uint32_t port = 4050;
    std::string unix_path; ///< Not empty: a unix socket instead.
    bool operator==(const QgsAddress&) const = default;
};
/// "vsock:2:4050" or "unix:/path". @errors invalid_argument
[[nodiscard]] Result<QgsAddress> parse_qgs_address(std::string_view text);
[[nodiscard]] std::string format_qgs_address(const QgsAddress& address);

struct KeyProvider {
    KeyProviderKind kind = KeyProviderKind::local;
    std::string relay_host;
    std::uint16_t relay_port = 0;
    std::vector<std::string> kms_urls;
    bool operator==(const KeyProvider&) const = default;
};
/// "local", "none", "relay=HOST:PORT", "kms=URL,URL". @errors invalid_argument
[[nodiscard]] Result<KeyProvider> parse_key_provider(std::string_view text);
[[nodiscard]] std::string format_key_provider(const KeyProvider& provider);

struct Network {
    NetworkMode mode = NetworkMode::user;
    std::string bridge;
    UserNetwork user = UserNetwork::automatic;
    bool operator==(const Network&) const = default;
};
/// "user", "user=slirp", "user=passt", "user=qemu", "none", "bridge=BR". @errors invalid_argument
[[nodiscard]] Result<Network> parse_network(std::string_view text);

/// Who starts QEMU.
struct Backend {
    bool libvirt = false; ///< False: this process.
    std::string uri;      ///< Empty: qemu:///system for root, else qemu:///session.
    bool operator==(const Backend&) const = default;
};
/// "qemu", "libvirt", "libvirt=URI". @errors invalid_argument
[[nodiscard]] Result<Backend> parse_backend(std::string_view text);

struct RestartRule {
    bool on_failure = false;
    std::uint32_t max_restarts = 5; ///< In a row; the count starts anew after 300 s up.
    bool operator==(const RestartRule&) const = default;
};
/// "no", "on-failure", "on-failure:3". @errors invalid_argument
[[nodiscard]] Result<RestartRule> parse_restart_rule(std::string_view text);

/// [A-Za-z0-9][A-Za-z0-9_.-]{0,62}; not a name that reads as an id (12 hex digits).
[[nodiscard]] Result<std::string> parse_instance_name(std::string_view text);

struct VmSpec {
    std::string name; ///< Empty: a temporary instance.
    std::string image_path;
    std::optional<std::string> compose_path; ///< nullopt: boots with no services.
    std::string env_file;                    ///< Empty: none.
    std::uint32_t cpus = 12;
    std::uint64_t memory_bytes = 32 * gib;
    std::uint64_t disk_bytes = 500 * gib;
    std::vector<PortMapping> ports;
    std::vector<PciAddress> gpus; ///< In the order in which the VM sees them.
    bool all_gpus = false;        ///< All of the host, and its NVSwitches; `gpus` is empty then.
    bool pin_numa = false;
    std::optional<std::uint32_t> numa_node; ///< nullopt: chosen by the GPUs, or by free memory.
    bool hugepages = false;
    std::uint64_t hugepage_bytes =
        0; ///< 2 MiB or 1 GiB; 0: the larger one that there is enough of.
    Tee tee = Tee::tdx;
    AcceleratorChoice accelerator = AcceleratorChoice::automatic;
    std::string qemu_path = "qemu-system-x86_64";
    /// The account that QEMU runs as; empty: chosen by who starts it.
    std::string user;
    Backend backend;
    std::optional<QgsAddress> qgs;
    KeyProvider key_provider;
    Network network;
    std::optional<bool> egress; ///< nullopt: off for our image, on for dstack's.
    std::vector<std::uint16_t> host_services;
    std::string append;    ///< Added to the kernel command line; measured.
    bool firmware = false; ///< --tee none: boot through the image's firmware, not SeaBIOS.
    RestartRule restart;
    std::chrono::milliseconds stop_timeout{0}; ///< 0: scaled with memory.
};

/// Rules between the fields (ports without a user network, TCG with TDX, duplicates, ...).
/// @errors invalid_argument; unsupported: an option whose work lies in a later release
[[nodiscard]] Result<void> check_vm_spec(const VmSpec& spec);

} // namespace host_runner::spec

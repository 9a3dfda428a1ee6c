// SPDX-License-Identifier: Apache-2.0
#include "host_runner/spec/vm_spec.hpp"

#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "text.hpp"

namespace host_runner::spec {

namespace {

tl::unexpected<Error> bad_value(std::string_view text, std::string_view what, std::string hint) {
    return fail(ErrorCode::invalid_argument, fmt::format("'{}' is not {}", text, what),
                std::move(hint));
}

/// The text after `prefix`; nullopt when it does not begin so.
std::optional<std::string_view> after(std::string_view text, std::string_view prefix) noexcept {
    if (!text.starts_with(prefix))
        return std::nullopt;
    return text.substr(prefix.size());
}

/// sun_path without its final zero (linux include/uapi/linux/un.h).
constexpr std::size_t max_socket_path = 107;
constexpr std::size_t max_uri = 512;
/// IFNAMSIZ without its final zero (linux include/uapi/linux/if.h).
constexpr std::size_t max_interface_name = 15;
/// Of x86; the kernel cuts off what is longer (linux arch/x86/include/asm/setup.h).
constexpr std::size_t max_kernel_command_line = 2047;
/// Smaller ones do not hold a file system with its journal.
constexpr std::uint64_t min_disk_bytes = 64 * mib;

tl::unexpected<Error> conflict(std::string message, std::string hint) {
    return fail(ErrorCode::invalid_argument, std::move(message), std::move(hint));
}

Result<void> check_sizes(const VmSpec& spec) {
    if (spec.cpus == 0)
        return conflict("--cpus 0: a VM needs at least one CPU", "for example --cpus 4");
    if (spec.memory_bytes == 0 || spec.memory_bytes % mib != 0)
        return conflict(
            fmt::format("--memory {} is not a whole number of MiB", format_size(spec.memory_bytes)),
            "for example --memory 4G");
    if (spec.disk_bytes < min_disk_bytes)
        return conflict(fmt::format("--disk {} is too small: the least is {}",
                                    format_size(spec.disk_bytes), format_size(min_disk_bytes)),
                        "for example --disk 10G; the file is sparse and grows with its use");
    return {};
}

Result<void> check_ports(const VmSpec& spec) {
    if (!spec.ports.empty() && spec.network.mode != NetworkMode::user)
        return conflict(fmt::format("--ports {} cannot be forwarded with --net {}",
                                    format_port_mapping(spec.ports.front()),
                                    to_string(spec.network.mode)),
                        "use --net user, or leave --ports out");
    for (auto mapping = spec.ports.begin(); mapping != spec.ports.end(); ++mapping)
        for (auto other = spec.ports.begin(); other != mapping; ++other)
            if (conflicts(*mapping, *other))
                return conflict(fmt::format("--ports names the host port {} twice: {} and {}",
                                            mapping->host_port, format_port_mapping(*other),
                                            format_port_mapping(*mapping)),
                                "give each mapping its own host port, or 0 for a free one");
    return {};
}

Result<void> check_host_services(const VmSpec& spec) {
    if (spec.host_services.empty() || spec.network.mode == NetworkMode::none)
        return {};
    if (spec.network.mode == NetworkMode::bridge)
        return conflict(fmt::format("--host-service is of the user network, and --net bridge={} "
                                    "has none",
                                    spec.network.bridge),
                        "let the service listen on an address of the bridge, or use --net user");
    if (spec.network.user == UserNetwork::qemu || spec.network.user == UserNetwork::passt)
        return conflict(fmt::format("--host-service cannot be had with --net user={}",
                                    to_string(spec.network.user)),
                        "use --net user");
    return {};
}

Result<void> check_network(const VmSpec& spec) {
    HR_CHECK(check_ports(spec));
    HR_CHECK(check_host_services(spec));
    if (spec.network.mode == NetworkMode::bridge && spec.egress && !*spec.egress)
        return conflict(fmt::format("--egress off cannot be had with --net bridge={}: what the "
                                    "guest reaches is up to the bridge",
                                    spec.network.bridge),
                        "use --net user, or leave --egress out");
    if (spec.network.user == UserNetwork::passt && spec.egress && !*spec.egress)
        return conflict("--egress off cannot be had with --net user=passt",
                        "use --net user, or leave --egress out");
    if (spec.network.mode != NetworkMode::none)
        return {};
    if (spec.egress.value_or(false))
        return conflict("--egress on needs a network, and --net none gives none",
                        "use --net user, or leave --egress out");
    if (!spec.host_services.empty())
        return conflict("--host-service needs a network, and --net none gives none",
                        "use --net user, or leave --host-service out");
    return {};
}

/// libvirt starts QEMU in its own way, and knows nothing of our programs.
Result<void> check_backend(const VmSpec& spec) {
    if (!spec.backend.libvirt)
        return {};
    if (!spec.user.empty())
        return conflict(
            "--user and --backend libvirt exclude each other: libvirt starts QEMU as the "
            "user who runs host_runner",
            "leave one of them out");
    if (!spec.host_services.empty())
        return conflict("--host-service is not to be had with --backend libvirt",
                        "leave one of the two out");
    if (spec.network.user == UserNetwork::slirp || spec.network.user == UserNetwork::passt)
        return conflict("With --backend libvirt a user network is QEMU's own",
                        "use --net user, or leave --backend out");
    return {};
}

Result<void> check_tee(const VmSpec& spec) {
    if (spec.tee == Tee::tdx && spec.accelerator == AcceleratorChoice::tcg)
        return conflict("--tee tdx cannot run with --accel tcg: software emulation has no TDX",
                        "leave --accel out, or use --tee none for a VM that the host can read");
    if (spec.tee == Tee::none && spec.qgs)
        return conflict("--qgs has no use with --tee none: there is nothing to quote",
                        "leave --qgs out, or use --tee tdx");
    return {};
}

Result<void> check_texts(const VmSpec& spec) {
    const auto is_control = [](char c) {
        return (c >= 0 && c < ' ') || c == 0x7f;
    };
    if (std::any_of(spec.append.begin(), spec.append.end(), is_control))
        return conflict("--append holds a control character, which no kernel command line can",
                        "give one line, e.g. --append \"console=ttyS0 quiet\"");
    if (spec.append.size() > max_kernel_command_line)
        return conflict(fmt::format("--append is {} bytes long: a kernel command line has at most "
                                    "{}",
                                    spec.append.size(), max_kernel_command_line),
                        "shorten it");
    if (!spec.env_file.empty() && !spec.compose_path)
        return conflict(fmt::format("--env-file {} has no use without a compose file: the VM "
                                    "starts no services",
                                    spec.env_file),
                        "name one with --compose-path, or leave --env-file out");
    return {};
}

Result<void> check_gpus(const VmSpec& spec) {
    auto sorted = spec.gpus;
    std::sort(sorted.begin(), sorted.end());
    const auto twice = std::adjacent_find(sorted.begin(), sorted.end());
    if (twice != sorted.end())
        return conflict(fmt::format("--gpus names {} twice", format_pci_address(*twice)),
                        "name each device once");
    if (spec.all_gpus && !spec.gpus.empty())
        return conflict(
            fmt::format("--gpus all already includes {}", format_pci_address(spec.gpus.front())),
            "give --gpus all alone, or only the addresses");
    return {};
}

Result<void> check_placement(const VmSpec& spec) {
    if (spec.numa_node && !spec.pin_numa && !spec.hugepages)
        return conflict(fmt::format("--numa-node {} has no use without --pin-numa or --hugepage",
                                    *spec.numa_node),
                        "add --pin-numa");
    if (spec.hugepage_bytes != 0 && !spec.hugepages)
        return conflict("--hugepage-size has no use without --hugepage", "add --hugepage");
    return {};
}

/// What is parsed and checked but not done yet. Nothing is faked: a VM without the device, the
/// placement or the keys that were asked for would be another one.
Result<void> refuse_what_comes_later(const VmSpec& spec) {
    const auto later = [](std::string_view option, std::string_view what) {
        return fail(ErrorCode::unsupported,
                    fmt::format("{} is not in this version yet: {}", option, what),
                    "leave it out for now");
    };
    if (spec.key_provider.kind == KeyProviderKind::relay ||
        spec.key_provider.kind == KeyProviderKind::kms)
        return later(fmt::format("--key-provider {}", format_key_provider(spec.key_provider)),
                     "it arrives with the release of keys");
    return {};
}

} // namespace

std::string_view to_string(Tee tee) noexcept {
    return tee == Tee::tdx ? "tdx" : "none";
}

std::string_view to_string(AcceleratorChoice choice) noexcept {
    switch (choice) {
    case AcceleratorChoice::automatic:
        return "auto";
    case AcceleratorChoice::kvm:
        return "kvm";
    case AcceleratorChoice::tcg:
        return "tcg";
    }
    return "?";
}

std::string_view to_string(NetworkMode mode) noexcept {
    switch (mode) {
    case NetworkMode::user:
        return "user";
    case NetworkMode::none:
        return "none";
    case NetworkMode::bridge:
        return "bridge";
    }
    return "?";
}

std::string_view to_string(UserNetwork network) noexcept {
    switch (network) {
    case UserNetwork::automatic:
        return "auto";
    case UserNetwork::qemu:
        return "qemu";
    case UserNetwork::slirp:
        return "slirp";
    case UserNetwork::passt:
        return "passt";
    }
    return "?";
}

std::string_view to_string(KeyProviderKind kind) noexcept {
    switch (kind) {
    case KeyProviderKind::none:
        return "none";
    case KeyProviderKind::local:
        return "local";
    case KeyProviderKind::relay:
        return "relay";
    case KeyProviderKind::kms:
        return "kms";
    }
    return "?";
}

Result<QgsAddress> parse_qgs_address(std::string_view text) {
    const auto bad =
        bad_value(text, "the address of a quote generation service",
                  "write vsock:CID:PORT, e.g. vsock:2:4050, or unix:PATH with an absolute path");
    if (const auto path = after(text, "unix:")) {
        if (!path->starts_with('/') || path->size() > max_socket_path || !is_graphic(*path))
            return bad;
        QgsAddress address;
        address.unix_path = *path;
        return address;
    }
    const auto parts = split(text, ':');
    if (parts.size() != 3 || parts[0] != "vsock")
        return bad;
    const auto cid = parse_number<std::uint32_t>(parts[1]);
    const auto port = parse_number<std::uint32_t>(parts[2]);
    if (!cid || !port || *port == 0)
        return bad;
    return QgsAddress{*cid, *port, {}};
}

std::string format_qgs_address(const QgsAddress& address) {
    return address.unix_path.empty() ? fmt::format("vsock:{}:{}", address.cid, address.port)
                                     : fmt::format("unix:{}", address.unix_path);
}

Result<KeyProvider> parse_key_provider(std::string_view text) {
    const auto bad =
        bad_value(text, "a key provider",
                  "write local, none, relay=HOST:PORT or kms=URL[,URL], e.g. relay=10.0.0.5:9000 "
                  "or kms=https://kms.example:8000");
    KeyProvider provider;
    if (text == "local")
        return provider;
    if (text == "none") {
        provider.kind = KeyProviderKind::none;
        return provider;
    }
    if (const auto relay = after(text, "relay=")) {
        const auto colon = relay->rfind(':');
        if (colon == 0 || colon == std::string_view::npos || !is_graphic(*relay))
            return bad;
        const auto port = parse_number<std::uint16_t>(relay->substr(colon + 1));
        if (!port || *port == 0)
            return bad;
        provider.kind = KeyProviderKind::relay;
        provider.relay_host = relay->substr(0, colon);
        provider.relay_port = *port;
        return provider;
    }
    const auto urls = after(text, "kms=");
    if (!urls)
        return bad;
    provider.kind = KeyProviderKind::kms;
    for (const auto url : split(*urls, ',')) {
        const auto host = after(url, "https://");
        if (!host || host->empty() || host->front() == '/' || !is_graphic(url))
            return bad;
        provider.kms_urls.emplace_back(url);
    }
    return provider;
}

std::string format_key_provider(const KeyProvider& provider) {
    switch (provider.kind) {
    case KeyProviderKind::relay:
        return fmt::format("relay={}:{}", provider.relay_host, provider.relay_port);
    case KeyProviderKind::kms:
        return fmt::format("kms={}", fmt::join(provider.kms_urls, ","));
    case KeyProviderKind::none:
    case KeyProviderKind::local:
        break;
    }
    return std::string(to_string(provider.kind));
}

Result<Network> parse_network(std::string_view text) {
    if (text == "user")
        return Network{};
    if (text == "none")
        return Network{NetworkMode::none, {}};
    for (const auto network : {UserNetwork::slirp, UserNetwork::passt, UserNetwork::qemu})
        if (after(text, "user=") == to_string(network))
            return Network{NetworkMode::user, {}, network};
    const auto bridge = after(text, "bridge=");
    if (!bridge || bridge->empty() || bridge->size() > max_interface_name || !is_graphic(*bridge) ||
        bridge->find_first_of("/,") != std::string_view::npos)
        return bad_value(text, "a network",
                         "use user, user=slirp, user=passt, user=qemu, none or bridge=NAME, e.g. "
                         "bridge=br0");
    return Network{NetworkMode::bridge, std::string(*bridge)};
}

Result<Backend> parse_backend(std::string_view text) {
    if (text == "qemu")
        return Backend{};
    if (text == "libvirt")
        return Backend{true, {}};
    const auto uri = after(text, "libvirt=");
    if (!uri || uri->find(':') == std::string_view::npos || uri->size() > max_uri ||
        !is_graphic(*uri))
        return bad_value(text, "a backend",
                         "use qemu, libvirt or libvirt=URI, e.g. libvirt=qemu:///system");
    return Backend{true, std::string(*uri)};
}

Result<RestartRule> parse_restart_rule(std::string_view text) {
    if (text == "no")
        return RestartRule{};
    RestartRule rule;
    rule.on_failure = true;
    if (text == "on-failure")
        return rule;
    const auto count_text = after(text, "on-failure:");
    const auto count = count_text ? parse_number<std::uint32_t>(*count_text) : std::nullopt;
    if (!count || *count == 0)
        return bad_value(text, "a restart rule",
                         "use no, on-failure or on-failure:N with N restarts in a row, e.g. "
                         "on-failure:3");
    rule.max_restarts = *count;
    return rule;
}

Result<std::string> parse_instance_name(std::string_view text) {
    constexpr std::size_t max_length = 63;
    constexpr std::size_t id_length = 12;
    const auto bad = [&](std::string_view rule) {
        return bad_value(text, fmt::format("an instance name: {}", rule), "for example web-1");
    };
    if (text.empty() || text.size() > max_length)
        return bad("it must have 1 to 63 characters");
    if (!is_alphanumeric(text.front()))
        return bad("it must begin with a letter or digit");
    if (!std::all_of(text.begin(), text.end(),
                     [](char c) { return is_alphanumeric(c) || c == '_' || c == '.' || c == '-'; }))
        return bad("only letters, digits, '_', '.' and '-' may stand in it");
    if (text.size() == id_length &&
        text.find_first_not_of("0123456789abcdefABCDEF") == std::string_view::npos)
        return bad("twelve hexadecimal digits read as an id");
    return std::string(text);
}

Result<void> check_vm_spec(const VmSpec& spec) {
    HR_CHECK(check_sizes(spec));
    HR_CHECK(check_network(spec));
    HR_CHECK(check_backend(spec));
    HR_CHECK(check_tee(spec));
    HR_CHECK(check_texts(spec));
    HR_CHECK(check_gpus(spec));
    HR_CHECK(check_placement(spec));
    return refuse_what_comes_later(spec);
}

} // namespace host_runner::spec

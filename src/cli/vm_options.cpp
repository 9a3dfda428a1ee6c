// SPDX-License-Identifier: Apache-2.0
#include "host_runner/cli/vm_options.hpp"

#include <fmt/format.h>

#include "host_runner/base/files.hpp"
#include "host_runner/base/units.hpp"

namespace host_runner::cli {

namespace {

/// What QEMU's q35 machine takes at most (QEMU 9.1 hw/i386/pc_q35.c); an older one says so itself.
constexpr std::uint32_t max_cpus = 4096;
constexpr std::uint32_t max_port = 65535;
/// CONFIG_NODES_SHIFT is at most 10 (Linux mm/Kconfig and arch/x86/Kconfig).
constexpr std::uint32_t max_numa_node = 1023;

Result<std::vector<std::uint16_t>> parse_host_services(std::string_view text) {
    std::vector<std::uint16_t> ports;
    while (true) {
        const auto end = std::min(text.find(','), text.size());
        const auto item = text.substr(0, end);
        const auto port = config::parse_count(
            item.starts_with("tcp:") ? item.substr(4) : std::string_view(), 1, max_port);
        if (!port)
            return fail(ErrorCode::invalid_argument,
                        fmt::format("'{}' is not a service of the host", item),
                        "write tcp:PORT with a port from 1 to 65535, e.g. tcp:5432");
        ports.push_back(static_cast<std::uint16_t>(*port));
        if (end == text.size())
            return ports;
        text.remove_prefix(end + 1);
    }
}

Result<std::string> parse_not_empty(std::string_view text) {
    if (text.empty())
        return fail(ErrorCode::invalid_argument, "the value is empty");
    return std::string(text);
}

Result<std::chrono::milliseconds> parse_time_limit(std::string_view text) {
    HR_TRY(const auto limit, parse_duration(text));
    if (limit.count() == 0)
        return fail(ErrorCode::invalid_argument, fmt::format("'{}' leaves no time", text),
                    "write e.g. 90s");
    return limit;
}

/// --key-provider says it in full; --[no-]local-key-provider is the older way to say local or none.
Result<spec::KeyProvider> key_provider(const config::Settings& settings) {
    const auto& local = settings.get("local-key-provider");
    const bool is_local = settings.is_on("local-key-provider");
    HR_TRY(auto provider, settings.parsed_if_set("key-provider", spec::parse_key_provider));
    if (!provider) {
        spec::KeyProvider chosen;
        chosen.kind = is_local ? spec::KeyProviderKind::local : spec::KeyProviderKind::none;
        return chosen;
    }
    const bool says_local = provider->kind == spec::KeyProviderKind::local;
    if (local.origin != config::Origin::built_in && is_local != says_local)
        return fail(ErrorCode::invalid_argument,
                    fmt::format("{} contradicts --key-provider {}",
                                is_local ? local.described() : "--no-local-key-provider",
                                spec::format_key_provider(*provider)),
                    "give one of the two");
    return std::move(*provider);
}

std::optional<std::string> compose_path(const config::Settings& settings) {
    const auto path = settings.text("compose-path");
    if (settings.get("compose-path").origin == config::Origin::built_in && !path_exists(path))
        return std::nullopt;
    return path;
}

spec::AcceleratorChoice accelerator(std::string_view word) {
    if (word == "kvm")
        return spec::AcceleratorChoice::kvm;
    return word == "tcg" ? spec::AcceleratorChoice::tcg : spec::AcceleratorChoice::automatic;
}

} // namespace

Result<spec::VmSpec> make_vm_spec(const config::Settings& settings, NeedsImage needs_image) {
    spec::VmSpec spec;
    HR_TRY(auto image_path, settings.parsed_if_set("image-path", parse_not_empty));
    if (!image_path && needs_image == NeedsImage::yes)
        return fail(ErrorCode::invalid_argument, "--image-path is missing: which image to start",
                    "for example host_runner run -i images/out/native");
    spec.image_path = image_path.value_or("");
    spec.compose_path = compose_path(settings);
    spec.env_file = settings.text("env-file");
    HR_TRY(spec.cpus, settings.parsed("cpus", [](std::string_view text) {
        return config::parse_count(text, 1, max_cpus);
    }));
    HR_TRY(spec.memory_bytes, settings.parsed("memory", parse_size));
    HR_TRY(spec.disk_bytes, settings.parsed("disk", parse_size));
    HR_TRY(auto name, settings.parsed_if_set("name", spec::parse_instance_name));
    spec.name = name.value_or("");
    spec.append = settings.text("append");
    spec.firmware = settings.is_on("firmware");

    spec.tee = settings.text("tee") == "tdx" ? spec::Tee::tdx : spec::Tee::none;
    HR_TRY(spec.qgs, settings.parsed_if_set("qgs", spec::parse_qgs_address));
    HR_TRY(spec.key_provider, key_provider(settings));

    HR_TRY(spec.ports, settings.parsed_list("ports", spec::parse_port_mappings));
    HR_TRY(spec.network, settings.parsed("net", spec::parse_network));
    if (settings.is_set("egress"))
        spec.egress = settings.text("egress") == "on";
    HR_TRY(spec.host_services, settings.parsed_list("host-service", parse_host_services));

    spec.accelerator = accelerator(settings.text("accel"));
    HR_TRY(spec.qemu_path, settings.parsed("qemu", parse_not_empty));
    HR_TRY(auto user, settings.parsed_if_set("user", parse_not_empty));
    spec.user = user.value_or("");
    HR_TRY(spec.backend, settings.parsed("backend", spec::parse_backend));
    const auto parse_gpus = [&](std::string_view text) -> Result<std::vector<spec::PciAddress>> {
        if (text != "all")
            return spec::parse_pci_addresses(text);
        spec.all_gpus = true;
        return {};
    };
    HR_TRY(spec.gpus, settings.parsed_list("gpus", parse_gpus));
    spec.pin_numa = settings.is_on("pin-numa");
    HR_TRY(spec.numa_node, settings.parsed_if_set("numa-node", [](std::string_view text) {
        return config::parse_count(text, 0, max_numa_node);
    }));
    spec.hugepages = settings.is_on("hugepage");
    if (const auto size = settings.text("hugepage-size"); size != "auto")
        spec.hugepage_bytes = size == "1G" ? gib : 2 * mib;

    HR_TRY(spec.restart, settings.parsed("restart", spec::parse_restart_rule));
    HR_TRY(auto stop_timeout, settings.parsed_if_set("stop-timeout", parse_time_limit));
    spec.stop_timeout = stop_timeout.value_or(std::chrono::milliseconds(0));

    HR_CHECK(spec::check_vm_spec(spec));
    return spec;
}

} // namespace host_runner::cli

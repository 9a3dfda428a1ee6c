// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "host_runner/base/units.hpp"
#include "host_runner/cli/formatter.hpp"
#include "host_runner/cli/run_view.hpp"
#include "host_runner/instance/logs.hpp"
#include "host_runner/protocol/guest_api.hpp"

namespace host_runner::cli {

namespace {

using Row = std::vector<std::string>;

std::string or_dash(std::string text) {
    return text.empty() ? "-" : std::move(text);
}

/// Columns as wide as their widest cell, two blanks apart; the first row holds the headings.
std::string columns(const std::vector<Row>& rows) {
    std::vector<std::size_t> widths(rows.front().size());
    for (const auto& row : rows)
        for (std::size_t i = 0; i < row.size(); ++i)
            widths[i] = std::max(widths[i], row[i].size());
    std::string text;
    for (const auto& row : rows) {
        std::string line;
        for (std::size_t i = 0; i < row.size(); ++i)
            line += i + 1 == row.size() ? row[i] : fmt::format("{:<{}}  ", row[i], widths[i]);
        text += line + '\n';
    }
    return text;
}

/// "name  value" lines; a value of several lines goes on under its first.
class Facts {
public:
    void add(std::string_view name, std::string_view value) {
        if (!value.empty())
            rows_.emplace_back(name, value);
    }
    [[nodiscard]] std::string text() const {
        std::size_t width = 0;
        for (const auto& [name, value] : rows_)
            width = std::max(width, name.size());
        std::string result;
        for (const auto& [name, value] : rows_)
            result += fmt::format("{:<{}}  {}\n", name, width, value);
        return result;
    }

private:
    std::vector<std::pair<std::string, std::string>> rows_;
};

std::string ports_of(const instance::Record& record) {
    std::vector<std::string> ports;
    for (const auto& mapping : record.ports)
        ports.push_back(spec::format_port_mapping(mapping));
    return fmt::format("{}", fmt::join(ports, ","));
}

std::string uptime_of(const instance::Instance& one) {
    return one.live && one.live->qemu_pid != 0
               ? format_duration(std::chrono::milliseconds(one.live->uptime_ms))
               : std::string();
}

std::string pid_text(pid_t pid) {
    return pid == 0 ? std::string() : std::to_string(pid);
}

/// The members of a guest's answer, whose words may be anything.
void add_guest(Facts& facts, std::string_view prefix, const std::string& json) {
    const auto parsed = nlohmann::json::parse(json, nullptr, false);
    if (!parsed.is_object())
        return;
    for (const auto& [name, value] : parsed.items())
        if (value.is_string())
            facts.add(instance::printable(fmt::format("{} {}", prefix, name), 64),
                      instance::printable(value.get<std::string>()));
}

void add_services(Facts& facts, const std::string& json) {
    const auto services = protocol::decode_services(json);
    if (!services)
        return; // the guest has not told
    for (const auto& service : *services) {
        facts.add("service", instance::printable(fmt::format(
                                 "{} {} {}", service.name, service.state, service.program_sha256)));
        if (!service.certificate_sha256.empty())
            facts.add("", instance::printable(fmt::format("TLS certificate, SHA-256 {}",
                                                          service.certificate_sha256)));
        std::vector<std::string> counted;
        for (const auto& [name, count] : service.counters)
            if (count > 0)
                counted.push_back(fmt::format("{} {}", name, count));
        if (!counted.empty())
            facts.add("", fmt::format("counted: {}", fmt::join(counted, ", ")));
    }
}

class TextFormatter final : public Formatter {
public:
    [[nodiscard]] std::string instances(const std::vector<instance::Instance>& all) const override {
        std::vector<Row> rows{
            {"ID", "NAME", "STATE", "IMAGE", "TEE", "CPUS", "MEMORY", "PORTS", "PID", "UPTIME"}};
        for (const auto& one : all) {
            const auto& record = one.record;
            rows.push_back({record.id, or_dash(record.name), std::string(to_string(one.state)),
                            or_dash(record.image_name), record.tee == "none" ? "none!" : record.tee,
                            std::to_string(record.cpus), format_size(record.memory_bytes),
                            or_dash(ports_of(record)),
                            or_dash(one.live ? pid_text(one.live->qemu_pid) : ""),
                            or_dash(uptime_of(one))});
        }
        return columns(rows);
    }

    [[nodiscard]] std::string instance(const instance::Instance& one,
                                       const std::string& directory) const override {
        const auto& record = one.record;
        Facts facts;
        facts.add("id", record.id);
        facts.add("name", record.name);
        facts.add("state", to_string(one.state));
        if (one.live) {
            facts.add("phase", one.live->phase);
            facts.add("progress", instance::printable(one.live->last_progress));
            facts.add("uptime", uptime_of(one));
            if (one.live->ready_after_ms >= 0)
                facts.add("ready after",
                          format_duration(std::chrono::milliseconds(one.live->ready_after_ms)));
            facts.add("QEMU pid", pid_text(one.live->qemu_pid));
            facts.add("QEMU status", one.live->qmp_status);
            facts.add("runner pid", pid_text(one.live->runner_pid));
            facts.add("restarts", std::to_string(one.live->restarts));
        }
        if (one.end) {
            facts.add("ended", instance::printable(describe_end(*one.end)));
            if (one.end->time_ms != 0) // nobody saw the runner die
                facts.add("ended at", instance::format_rfc3339(one.end->time_ms));
            facts.add("exit code", fmt::format("{} ({})", static_cast<int>(one.end->exit_code),
                                               to_string(one.end->exit_code)));
        }
        facts.add("created at", instance::format_rfc3339(record.created_ms));
        facts.add("started at", instance::format_rfc3339(record.started_ms));
        facts.add("image", record.image_directory);
        facts.add("image hash", record.os_image_hash);
        facts.add("TEE", record.tee == "none" ? "none: the host can read this VM" : record.tee);
        facts.add("accelerator", record.accelerator);
        facts.add("CPUs", std::to_string(record.cpus));
        facts.add("memory", format_size(record.memory_bytes));
        facts.add("disk", format_size(record.disk_bytes));
        for (const auto& mapping : record.ports)
            facts.add("port", spec::format_port_mapping(mapping));
        if (!record.network.empty())
            facts.add("network", record.network);
        for (const auto port : record.host_services)
            facts.add("host service", fmt::format("tcp:{}", port));
        if (!record.numa_nodes.empty())
            facts.add("NUMA node", fmt::format("{}", fmt::join(record.numa_nodes, " and ")));
        if (record.hugepage_bytes != 0)
            facts.add("pages", format_size(record.hugepage_bytes));
        for (const auto& address : record.gpus)
            facts.add("GPU", spec::format_pci_address(address));
        if (record.vsock_cid != 0)
            facts.add("vsock CID", std::to_string(record.vsock_cid));
        facts.add("compose file", record.compose_path);
        facts.add("compose hash", record.compose_hash);
        facts.add("kernel command line", record.kernel_command_line);
        facts.add("QEMU", fmt::format("{} {}{}", record.qemu_path, record.qemu_version,
                                      record.qemu_user.empty() ? "" : " as " + record.qemu_user));
        facts.add("cgroup", record.cgroup);
        if (!record.backend_machine.empty())
            facts.add("started by", fmt::format("{} at {}, domain {}", record.backend,
                                                record.backend_address, record.backend_machine));
        facts.add("started in", record.working_directory);
        facts.add("folder", directory);
        facts.add("stdout log", record.stdout_log);
        facts.add("stderr log", record.stderr_log);
        if (one.live) {
            add_guest(facts, "guest", one.live->guest_info_json);
            add_services(facts, one.live->services_json);
        }
        return facts.text();
    }

    [[nodiscard]] std::string stats(const std::vector<StatsRow>& rows) const override {
        std::vector<Row> table{{"ID", "NAME", "CPU", "CPU TIME", "MEMORY", "QEMU", "RUNNER", "READ",
                                "WRITTEN", "UPTIME"}};
        const auto bytes = [](const std::optional<std::uint64_t>& value) {
            return value ? format_size_rounded(*value) : std::string("-");
        };
        for (const auto& row : rows) {
            const double seconds = row.qemu.cpu_seconds + row.runner.cpu_seconds;
            const double percent =
                row.uptime_ms > 0 ? seconds * 100'000.0 / static_cast<double>(row.uptime_ms) : 0.0;
            table.push_back({row.id, or_dash(row.name), fmt::format("{:.1f}%", percent),
                             format_duration(std::chrono::milliseconds(
                                 static_cast<std::int64_t>(seconds * 1000.0))),
                             format_size_rounded(row.qemu.memory_bytes + row.runner.memory_bytes),
                             format_size_rounded(row.qemu.memory_bytes),
                             format_size_rounded(row.runner.memory_bytes),
                             bytes(row.qemu.read_bytes), bytes(row.qemu.written_bytes),
                             format_duration(std::chrono::milliseconds(row.uptime_ms))});
        }
        return columns(table);
    }

    [[nodiscard]] std::string
    settings(const std::vector<config::Setting>& settings) const override {
        std::vector<Row> rows{{"SETTING", "VALUE", "FROM"}};
        for (const auto& setting : settings)
            rows.push_back(
                {config::config_key(*setting.option),
                 or_dash(fmt::format("{}", fmt::join(setting.values, ","))),
                 setting.place.empty() ? std::string(to_string(setting.origin)) : setting.place});
        return columns(rows);
    }

    [[nodiscard]] std::string image(const image::Image& image) const override {
        Facts facts;
        facts.add("directory", image.directory);
        facts.add("name", image.name);
        facts.add("guest", to_string(image.guest));
        facts.add("version", to_string(image.version));
        facts.add("layout", to_string(image.layout));
        facts.add("flavour", image.is_dev ? "dev" : "release");
        facts.add("image hash", image.os_image_hash);
        facts.add("kernel", image.kernel);
        facts.add("initrd", image.initrd);
        facts.add("firmware", image.firmware.value_or(""));
        facts.add("root file system", image.rootfs.value_or(""));
        facts.add("root hash", image.rootfs_hash);
        if (image.rootfs_size)
            facts.add("root size", format_size_rounded(*image.rootfs_size));
        facts.add("disk backing", image.disk_backing.value_or(""));
        facts.add("command line", image.command_line);
        return facts.text();
    }

    [[nodiscard]] std::string checks(const image::Image&,
                                     const std::vector<image::Check>& checks) const override {
        std::vector<Row> rows{{"CHECK", "RESULT", "DETAIL"}};
        for (const auto& check : checks)
            rows.push_back({check.name, check.passed ? "ok" : "FAILED", check.detail});
        return columns(rows);
    }

    [[nodiscard]] std::string
    findings(const std::vector<instance::Finding>& findings) const override {
        std::vector<Row> rows{{"REQUIREMENT", "VERDICT", "FOUND"}};
        for (const auto& finding : findings) {
            const bool is_needed = finding.verdict != instance::Verdict::not_needed;
            rows.push_back({std::string(finding.requirement),
                            is_needed ? std::string(to_string(finding.verdict)) : "not needed",
                            instance::printable(finding.found)});
            if (is_needed && !finding.remedy.empty())
                rows.push_back({"", "", "remedy: " + instance::printable(finding.remedy)});
        }
        return columns(rows);
    }

    [[nodiscard]] std::string gpus(const std::vector<GpuRow>& rows) const override {
        std::vector<Row> table{{"ADDRESS", "MODEL", "NODE", "DRIVER", "MODE", "GROUP", "HELD BY"}};
        const auto number = [](const std::optional<std::uint32_t>& value) {
            return value ? std::to_string(*value) : std::string("-");
        };
        for (const auto& row : rows) {
            const auto& device = row.gpu.pci;
            table.push_back({spec::format_pci_address(device.address),
                             instance::printable(row.gpu.model), number(device.numa_node),
                             or_dash(device.driver), "-", number(device.iommu_group),
                             or_dash(holder_of(row))});
        }
        return columns(table);
    }

    [[nodiscard]] std::string compose(const ComposeReport& report) const override {
        const auto& app = report.resolved.app;
        Facts facts;
        facts.add("compose file", report.path);
        facts.add("name", app.name);
        for (const auto& service : app.services) {
            facts.add("service", describe_service(service));
            for (const auto& mount : service.mounts)
                facts.add("", fmt::format("{} on {}{}", mount.source, mount.target,
                                          mount.read_only ? ", read-only" : ""));
        }
        for (const auto& mapping : report.resolved.ports)
            facts.add("port", spec::format_port_mapping(mapping));
        for (const auto& volume : app.volumes)
            facts.add("volume", volume);
        for (const auto& file : report.resolved.files)
            facts.add("file", fmt::format("{} {} {}", file.entry.sha256,
                                          format_size_rounded(file.entry.size), file.entry.name));
        facts.add("egress", app.egress ? "on" : "off");
        facts.add("powers off when done", app.power_off_when_done ? "yes" : "no");
        facts.add("compose hash", report.hash_with_local_keys);
        facts.add("", "with --key-provider kms or none: " + report.hash_without_local_keys);
        return facts.text();
    }

private:
    static std::string holder_of(const GpuRow& row) {
        if (!row.instance_id.empty())
            return fmt::format("{}{}",
                               row.instance_name.empty()
                                   ? row.instance_id
                                   : fmt::format("{} ({})", row.instance_id, row.instance_name),
                               row.is_left_behind ? ", killed" : "");
        if (row.gpu.holder)
            return fmt::format("{} (pid {})", instance::printable(row.gpu.holder->process.program),
                               row.gpu.holder->process.pid);
        return {};
    }

    static std::string describe_service(const protocol::AppService& service) {
        const auto command = fmt::format("{}", fmt::join(service.command, " "));
        const auto name = service.replicas == 1
                              ? service.name
                              : fmt::format("{} ({} replicas)", service.name, service.replicas);
        if (!service.module)
            return fmt::format("{}: {}", name, instance::printable(command));
        return fmt::format("{}: WebAssembly, world {}, {}, {} of memory{}: {}", name,
                           to_string(service.module->world), service.module->file,
                           format_size_rounded(service.module->memory_bytes),
                           service.module->tls ? ", TLS" : "", instance::printable(command));
    }
};

} // namespace

std::unique_ptr<Formatter> make_text_formatter() {
    return std::make_unique<TextFormatter>();
}

std::unique_ptr<Formatter> make_formatter(std::string_view form) {
    return form == "json" ? make_json_formatter() : make_text_formatter();
}

} // namespace host_runner::cli

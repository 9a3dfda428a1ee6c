// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "host_runner/cli/formatter.hpp"
#include "host_runner/protocol/guest_api.hpp"

namespace host_runner::cli {

namespace {

using Json = nlohmann::ordered_json;

/// Members are in the order in which people read them; text of any bytes gives valid JSON.
std::string document(const Json& members) {
    Json whole = {{"schema_version", 1}};
    whole.update(members);
    return whole.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

Json text_or_null(const std::string& text) {
    return text.empty() ? Json() : Json(text);
}

template <class Value>
Json or_null(const std::optional<Value>& value) {
    return value ? Json(*value) : Json();
}

Json pid_or_null(pid_t pid) {
    return pid == 0 ? Json() : Json(pid);
}

/// What the guest sent, as it sent it; null when there is none. What it nests deeper than any
/// message of the guest API is left out: writing JSON costs stack per level.
Json embedded(const std::string& json) {
    constexpr int max_depth = 8;
    const auto is_shallow = [](int depth, Json::parse_event_t, const Json&) {
        return depth <= max_depth;
    };
    auto parsed = Json::parse(json, is_shallow, false);
    return parsed.is_discarded() ? Json() : parsed;
}

/// Null when the guest has not told.
Json services_of(const std::string& json) {
    const auto services = protocol::decode_services(json);
    if (json.empty() || !services)
        return {};
    Json list = Json::array();
    for (const auto& service : *services)
        list.push_back({{"name", service.name},
                        {"state", service.state},
                        {"pid", service.pid == 0 ? Json() : Json(service.pid)},
                        {"exit_code", or_null(service.exit_code)},
                        {"restarts", service.restarts},
                        {"program_sha256", text_or_null(service.program_sha256)},
                        {"certificate_sha256", text_or_null(service.certificate_sha256)},
                        {"replica_of", text_or_null(service.replica_of)},
                        {"counters", service.counters.empty() ? Json() : Json(service.counters)}});
    return list;
}

Json ports_of(const instance::Record& record) {
    Json ports = Json::array();
    for (const auto& mapping : record.ports)
        ports.push_back(spec::format_port_mapping(mapping));
    return ports;
}

Json gpus_of(const instance::Record& record) {
    Json gpus = Json::array();
    for (const auto& address : record.gpus)
        gpus.push_back(spec::format_pci_address(address));
    return gpus;
}

Json holder_of(const GpuRow& row) {
    const auto& holder = row.gpu.holder;
    if (!holder && row.instance_id.empty())
        return {};
    return {{"instance_id", text_or_null(row.instance_id)},
            {"instance_name", text_or_null(row.instance_name)},
            {"is_left_behind", row.is_left_behind},
            {"pid", holder ? Json(holder->process.pid) : Json()},
            {"program", holder ? Json(holder->process.program) : Json()},
            {"node", holder ? Json(holder->node) : Json()}};
}

Json bars_of(const host::PciDevice& device) {
    Json bars = Json::array();
    for (const auto& bar : device.bars)
        bars.push_back({{"index", bar.index},
                        {"size_bytes", bar.size_bytes},
                        {"is_memory", bar.is_memory},
                        {"is_64bit", bar.is_64bit},
                        {"is_prefetchable", bar.is_prefetchable}});
    return bars;
}

Json end_of(const instance::Instance& one) {
    if (!one.end)
        return {};
    return {{"reason", to_string(one.end->reason)},
            {"exit_code", static_cast<int>(one.end->exit_code)},
            {"time_ms", one.end->time_ms},
            {"detail", one.end->detail}};
}

/// What `list` and `inspect` both say.
Json summary(const instance::Instance& one) {
    const auto& record = one.record;
    const bool runs = one.live && one.live->qemu_pid != 0;
    return {{"id", record.id},
            {"name", text_or_null(record.name)},
            {"state", to_string(one.state)},
            {"phase", one.live ? text_or_null(one.live->phase) : Json()},
            {"image", record.image_name},
            {"tee", record.tee},
            {"cpus", record.cpus},
            {"memory_bytes", record.memory_bytes},
            {"ports", ports_of(record)},
            {"pid", one.live ? pid_or_null(one.live->qemu_pid) : Json()},
            {"runner_pid", one.live ? pid_or_null(one.live->runner_pid) : Json()},
            {"uptime_ms", runs ? Json(one.live->uptime_ms) : Json()},
            {"created_ms", record.created_ms},
            {"started_ms", record.started_ms},
            {"end", end_of(one)}};
}

Json usage_of(const ProcessUsage& usage) {
    return {{"memory_bytes", usage.memory_bytes},
            {"cpu_seconds", usage.cpu_seconds},
            {"read_bytes", or_null(usage.read_bytes)},
            {"written_bytes", or_null(usage.written_bytes)}};
}

class JsonFormatter final : public Formatter {
public:
    [[nodiscard]] std::string instances(const std::vector<instance::Instance>& all) const override {
        Json rows = Json::array();
        for (const auto& one : all)
            rows.push_back(summary(one));
        return document({{"instances", std::move(rows)}});
    }

    [[nodiscard]] std::string instance(const instance::Instance& one,
                                       const std::string& directory) const override {
        const auto& record = one.record;
        Json members = summary(one);
        members.update(Json{
            {"image_directory", record.image_directory},
            {"os_image_hash", text_or_null(record.os_image_hash)},
            {"accelerator", record.accelerator},
            {"disk_bytes", record.disk_bytes},
            {"network", text_or_null(record.network)},
            {"host_services", record.host_services},
            {"numa_nodes", record.numa_nodes},
            {"hugepage_bytes", record.hugepage_bytes == 0 ? Json() : Json(record.hugepage_bytes)},
            {"gpus", gpus_of(record)},
            {"vsock_cid", record.vsock_cid == 0 ? Json() : Json(record.vsock_cid)},
            {"compose_path", text_or_null(record.compose_path)},
            {"compose_hash", text_or_null(record.compose_hash)},
            {"kernel_command_line", record.kernel_command_line},
            {"qemu_path", record.qemu_path},
            {"qemu_version", record.qemu_version},
            {"qemu_user", text_or_null(record.qemu_user)},
            {"cgroup", text_or_null(record.cgroup)},
            {"argv", record.argv},
            {"backend", record.backend},
            {"libvirt_uri", text_or_null(record.backend_address)},
            {"libvirt_domain", text_or_null(record.backend_machine)},
            {"libvirt_xml", text_or_null(record.description)},
            {"working_directory", record.working_directory},
            {"directory", directory},
            {"stdout_log", record.stdout_log},
            {"stderr_log", record.stderr_log},
        });
        const auto live = one.live.value_or(instance::LiveStatus{});
        members.update(Json{
            {"ready_after_ms", live.ready_after_ms < 0 ? Json() : Json(live.ready_after_ms)},
            {"last_progress", text_or_null(live.last_progress)},
            {"qmp_status", text_or_null(live.qmp_status)},
            {"restarts", one.live ? live.restarts : record.restarts},
            {"guest", embedded(live.guest_info_json)},
            {"services", services_of(live.services_json)},
        });
        return document(members);
    }

    [[nodiscard]] std::string stats(const std::vector<StatsRow>& rows) const override {
        Json list = Json::array();
        for (const auto& row : rows)
            list.push_back({{"id", row.id},
                            {"name", text_or_null(row.name)},
                            {"uptime_ms", row.uptime_ms},
                            {"memory_bytes", row.qemu.memory_bytes + row.runner.memory_bytes},
                            {"cpu_seconds", row.qemu.cpu_seconds + row.runner.cpu_seconds},
                            {"qemu", usage_of(row.qemu)},
                            {"runner", usage_of(row.runner)}});
        return document({{"instances", std::move(list)}});
    }

    [[nodiscard]] std::string
    settings(const std::vector<config::Setting>& settings) const override {
        Json list = Json::array();
        for (const auto& setting : settings)
            list.push_back({{"setting", config::config_key(*setting.option)},
                            {"variable", config::environment_name(*setting.option)},
                            {"values", setting.values},
                            {"origin", to_string(setting.origin)},
                            {"place", text_or_null(setting.place)}});
        return document({{"settings", std::move(list)}});
    }

    [[nodiscard]] std::string image(const image::Image& image) const override {
        return document({{"directory", image.directory},
                         {"name", image.name},
                         {"guest", to_string(image.guest)},
                         {"version", to_string(image.version)},
                         {"layout", to_string(image.layout)},
                         {"is_dev", image.is_dev},
                         {"os_image_hash", text_or_null(image.os_image_hash)},
                         {"kernel", image.kernel},
                         {"initrd", image.initrd},
                         {"firmware", or_null(image.firmware)},
                         {"rootfs", or_null(image.rootfs)},
                         {"rootfs_hash", text_or_null(image.rootfs_hash)},
                         {"rootfs_size", or_null(image.rootfs_size)},
                         {"disk_backing", or_null(image.disk_backing)},
                         {"command_line", image.command_line}});
    }

    [[nodiscard]] std::string checks(const image::Image& image,
                                     const std::vector<image::Check>& checks) const override {
        Json list = Json::array();
        bool passed = true;
        for (const auto& check : checks) {
            passed = passed && check.passed;
            list.push_back(
                {{"name", check.name}, {"passed", check.passed}, {"detail", check.detail}});
        }
        return document(
            {{"directory", image.directory}, {"passed", passed}, {"checks", std::move(list)}});
    }

    [[nodiscard]] std::string
    findings(const std::vector<instance::Finding>& findings) const override {
        Json list = Json::array();
        for (const auto& finding : findings)
            list.push_back({{"name", finding.requirement},
                            {"verdict", to_string(finding.verdict)},
                            {"found", finding.found},
                            {"remedy", text_or_null(finding.remedy)}});
        return document(
            {{"passed", !instance::has_failed(findings)}, {"requirements", std::move(list)}});
    }

    [[nodiscard]] std::string gpus(const std::vector<GpuRow>& rows) const override {
        Json list = Json::array();
        for (const auto& row : rows) {
            const auto& device = row.gpu.pci;
            list.push_back({{"address", spec::format_pci_address(device.address)},
                            {"kind", to_string(row.gpu.kind)},
                            {"model", row.gpu.model},
                            {"vendor_id", fmt::format("{:04x}", device.vendor)},
                            {"device_id", fmt::format("{:04x}", device.device)},
                            {"numa_node", or_null(device.numa_node)},
                            {"driver", text_or_null(device.driver)},
                            {"mode", nullptr}, // nothing on the host shows it
                            {"iommu_group", or_null(device.iommu_group)},
                            {"can_reset", device.can_reset},
                            {"bars", bars_of(device)},
                            {"held_by", holder_of(row)}});
        }
        return document({{"gpus", std::move(list)}});
    }

    [[nodiscard]] std::string compose(const ComposeReport& report) const override {
        const auto& app = report.resolved.app;
        Json services = Json::array();
        for (const auto& service : app.services) {
            Json one{{"name", service.name},
                     {"replicas", service.replicas},
                     {"command", service.command},
                     {"module", nullptr},
                     {"user", text_or_null(service.user)},
                     {"ports", service.ports},
                     {"mounts", Json::array()}};
            if (const auto& module = service.module)
                one["module"] = {{"file", module->file},
                                 {"world", to_string(module->world)},
                                 {"memory_bytes", module->memory_bytes},
                                 {"timeout_ms", module->timeout.count()},
                                 {"tls", module->tls.has_value()}};
            for (const auto& mount : service.mounts)
                one["mounts"].push_back({{"source", mount.source},
                                         {"target", mount.target},
                                         {"read_only", mount.read_only},
                                         {"is_file", mount.is_file}});
            services.push_back(std::move(one));
        }
        Json ports = Json::array();
        for (const auto& mapping : report.resolved.ports)
            ports.push_back(spec::format_port_mapping(mapping));
        Json files = Json::array();
        for (const auto& file : report.resolved.files)
            files.push_back({{"name", file.entry.name},
                             {"path", file.path},
                             {"sha256", file.entry.sha256},
                             {"size", file.entry.size}});
        return document({{"compose_path", report.path},
                         {"name", app.name},
                         {"services", std::move(services)},
                         {"ports", std::move(ports)},
                         {"volumes", app.volumes},
                         {"files", std::move(files)},
                         {"egress", app.egress},
                         {"power_off_when_done", app.power_off_when_done},
                         {"compose_hash", report.hash_with_local_keys},
                         {"compose_hash_without_local_keys", report.hash_without_local_keys}});
    }
};

} // namespace

std::unique_ptr<Formatter> make_json_formatter() {
    return std::make_unique<JsonFormatter>();
}

} // namespace host_runner::cli

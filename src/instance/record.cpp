// SPDX-License-Identifier: Apache-2.0
#include "host_runner/instance/record.hpp"

#include <algorithm>
#include <array>

#include <fmt/format.h>

#include "json_fields.hpp"

namespace host_runner::instance {

namespace {

using nlohmann::json;
using nlohmann::ordered_json;

/// Of the form of instance.json; a newer one may mean something else by the same names.
constexpr int schema_version = 1;

struct ReasonWord {
    EndReason reason;
    std::string_view word;
};
constexpr std::array<ReasonWord, 10> reason_words{{
    {EndReason::guest_shutdown, "guest_shutdown"},
    {EndReason::stop_requested, "stop_requested"},
    {EndReason::killed_by_force, "killed_by_force"},
    {EndReason::guest_reset, "guest_reset"},
    {EndReason::guest_panic, "guest_panic"},
    {EndReason::guest_boot_error, "guest_boot_error"},
    {EndReason::qemu_start_failed, "qemu_start_failed"},
    {EndReason::qemu_died, "qemu_died"},
    {EndReason::start_failed, "start_failed"},
    {EndReason::runner_died, "runner_died"},
}};

Result<End> decode_end(const json& object) {
    End end;
    read_field(object, "time_ms", end.time_ms);
    read_field(object, "detail", end.detail);
    std::string word;
    read_field(object, "reason", word);
    const auto reason = std::find_if(reason_words.begin(), reason_words.end(),
                                     [&](const auto& row) { return row.word == word; });
    int code = -1;
    read_field(object, "exit_code", code);
    const auto table = exit_code_table();
    const auto row = std::find_if(table.begin(), table.end(), [&](const auto& candidate) {
        return static_cast<int>(candidate.code) == code;
    });
    if (reason == reason_words.end() || row == table.end())
        return fail(ErrorCode::corrupt_data,
                    fmt::format("The record's end has the unknown reason '{}' or exit code {}",
                                word, code));
    end.reason = reason->reason;
    end.exit_code = row->code;
    return end;
}

Result<Record> decode(const json& object) {
    int version = 0;
    read_field(object, "schema_version", version);
    if (version != schema_version)
        return fail(ErrorCode::corrupt_data,
                    fmt::format("The record has schema_version {}, this host_runner reads {}",
                                version, schema_version));
    Record record;
    read_field(object, "id", record.id);
    read_field(object, "name", record.name);
    read_field(object, "created_ms", record.created_ms);
    read_field(object, "started_ms", record.started_ms);
    read_field(object, "image_directory", record.image_directory);
    read_field(object, "image_name", record.image_name);
    read_field(object, "os_image_hash", record.os_image_hash);
    read_field(object, "tee", record.tee);
    read_field(object, "accelerator", record.accelerator);
    read_field(object, "cpus", record.cpus);
    read_field(object, "memory_bytes", record.memory_bytes);
    read_field(object, "disk_bytes", record.disk_bytes);
    std::vector<std::string> ports;
    read_field(object, "ports", ports);
    for (const auto& text : ports) {
        HR_TRY(const auto mappings, spec::parse_port_mappings(text).map_error([](Error error) {
            return Error{ErrorCode::corrupt_data, std::move(error.message), {}, 0};
        }));
        record.ports.insert(record.ports.end(), mappings.begin(), mappings.end());
    }
    std::vector<std::string> gpus;
    read_field(object, "gpus", gpus);
    for (const auto& text : gpus) {
        HR_TRY(const auto addresses, spec::parse_pci_addresses(text).map_error([](Error error) {
            return Error{ErrorCode::corrupt_data, std::move(error.message), {}, 0};
        }));
        record.gpus.insert(record.gpus.end(), addresses.begin(), addresses.end());
    }
    read_field(object, "vsock_cid", record.vsock_cid);
    read_field(object, "compose_path", record.compose_path);
    read_field(object, "compose_hash", record.compose_hash);
    read_field(object, "kernel_command_line", record.kernel_command_line);
    read_field(object, "qemu_path", record.qemu_path);
    read_field(object, "qemu_version", record.qemu_version);
    read_field(object, "qemu_user", record.qemu_user);
    read_field(object, "cgroup", record.cgroup);
    read_field(object, "argv", record.argv);
    read_field(object, "backend", record.backend);
    read_field(object, "backend_address", record.backend_address);
    read_field(object, "backend_machine", record.backend_machine);
    read_field(object, "description", record.description);
    read_field(object, "working_directory", record.working_directory);
    read_field(object, "stdout_log", record.stdout_log);
    read_field(object, "stderr_log", record.stderr_log);
    read_field(object, "numa_nodes", record.numa_nodes);
    read_field(object, "hugepage_bytes", record.hugepage_bytes);
    read_field(object, "hugepage_directory", record.hugepage_directory);
    read_field(object, "network", record.network);
    read_field(object, "host_services", record.host_services);
    if (const auto runner = object.find("runner"); runner != object.end()) {
        read_field(*runner, "pid", record.runner.pid);
        read_field(*runner, "start_ticks", record.runner.start_ticks);
        read_field(*runner, "boot_id", record.runner.boot_id);
    }
    read_field(object, "restarts", record.restarts);
    if (const auto end = object.find("end"); end != object.end()) {
        HR_TRY(record.end, decode_end(*end));
    }
    if (!is_instance_id(record.id))
        return fail(ErrorCode::corrupt_data,
                    fmt::format("The record's id '{}' is not 12 hex digits", record.id));
    return record;
}

} // namespace

std::string_view to_string(EndReason reason) noexcept {
    for (const auto& row : reason_words)
        if (row.reason == reason)
            return row.word;
    return "unknown";
}

bool is_instance_id(std::string_view text) noexcept {
    return text.size() == 12 && std::all_of(text.begin(), text.end(), [](char c) {
               return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
           });
}

std::string encode_record(const Record& record) {
    std::vector<std::string> ports;
    for (const auto& mapping : record.ports)
        ports.push_back(spec::format_port_mapping(mapping));
    std::vector<std::string> gpus;
    for (const auto& address : record.gpus)
        gpus.push_back(spec::format_pci_address(address));
    ordered_json object{{"schema_version", schema_version},
                        {"id", record.id},
                        {"name", record.name},
                        {"created_ms", record.created_ms},
                        {"started_ms", record.started_ms},
                        {"image_directory", record.image_directory},
                        {"image_name", record.image_name},
                        {"os_image_hash", record.os_image_hash},
                        {"tee", record.tee},
                        {"accelerator", record.accelerator},
                        {"cpus", record.cpus},
                        {"memory_bytes", record.memory_bytes},
                        {"disk_bytes", record.disk_bytes},
                        {"ports", ports},
                        {"gpus", gpus},
                        {"vsock_cid", record.vsock_cid},
                        {"compose_path", record.compose_path},
                        {"compose_hash", record.compose_hash},
                        {"kernel_command_line", record.kernel_command_line},
                        {"qemu_path", record.qemu_path},
                        {"qemu_version", record.qemu_version},
                        {"qemu_user", record.qemu_user},
                        {"cgroup", record.cgroup},
                        {"argv", record.argv},
                        {"backend", record.backend},
                        {"backend_address", record.backend_address},
                        {"backend_machine", record.backend_machine},
                        {"description", record.description},
                        {"working_directory", record.working_directory},
                        {"stdout_log", record.stdout_log},
                        {"stderr_log", record.stderr_log},
                        {"numa_nodes", record.numa_nodes},
                        {"hugepage_bytes", record.hugepage_bytes},
                        {"hugepage_directory", record.hugepage_directory},
                        {"network", record.network},
                        {"host_services", record.host_services},
                        {"runner",
                         {{"pid", record.runner.pid},
                          {"start_ticks", record.runner.start_ticks},
                          {"boot_id", record.runner.boot_id}}},
                        {"restarts", record.restarts}};
    if (record.end)
        object["end"] = {{"time_ms", record.end->time_ms},
                         {"reason", to_string(record.end->reason)},
                         {"exit_code", static_cast<int>(record.end->exit_code)},
                         {"detail", record.end->detail}};
    return to_line(object) + "\n";
}

Result<Record> decode_record(std::string_view text) {
    return decode_object<Record>(text, max_record_bytes, ErrorCode::corrupt_data, "The record",
                                 decode);
}

} // namespace host_runner::instance

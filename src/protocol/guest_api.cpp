// SPDX-License-Identifier: Apache-2.0
#include "host_runner/protocol/guest_api.hpp"

#include <algorithm>
#include <array>

#include "host_runner/crypto/digest.hpp"
#include "loose_json.hpp"

namespace host_runner::protocol {

namespace {

using Json = nlohmann::ordered_json;

// A guest is not trusted: what it says about itself is bounded.
constexpr std::size_t max_info_bytes = 64UL * 1024;
constexpr std::size_t max_services_bytes = 256UL * 1024;
constexpr std::size_t max_services = 256;
constexpr std::size_t max_counters = 64;
constexpr std::size_t max_counter_name = 64;
constexpr std::size_t max_disks = 64;
constexpr std::size_t max_request_bytes = 1 << 20;
constexpr std::size_t max_line_bytes = 256UL * 1024;
constexpr std::size_t max_arguments = 1024;

std::string base64(std::string_view bytes) {
    return crypto::to_base64({reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()});
}

Result<std::string> bytes_of(std::string_view text) {
    HR_TRY(const auto bytes, crypto::from_base64(text));
    return std::string(bytes.begin(), bytes.end());
}

/// The items of an array member, each an object.
Result<std::vector<LooseObject>> objects(const LooseObject& from, const char* name,
                                         std::size_t max_items) {
    std::vector<LooseObject> result;
    const auto* array = from.find(name);
    if (array == nullptr)
        return result;
    if (!array->is_array() || array->size() > max_items)
        return LooseObject::wrong(name, fmt::format("a list of at most {}", max_items));
    for (const auto& item : *array) {
        if (!item.is_object())
            return LooseObject::wrong(name, "a list of objects");
        result.emplace_back(item);
    }
    return result;
}

Result<std::map<std::string, std::uint64_t>> counters_of(const LooseObject& service) {
    const auto* member = service.find("counters");
    std::map<std::string, std::uint64_t> counters;
    if (member == nullptr)
        return counters;
    const auto is_counter = [](const auto& item) {
        const auto& name = item.key();
        return !name.empty() && name.size() <= max_counter_name &&
               name.find_first_not_of("abcdefghijklmnopqrstuvwxyz_") == std::string::npos &&
               item.value().is_number_unsigned();
    };
    const auto items = member->items();
    if (!member->is_object() || member->size() > max_counters ||
        !std::all_of(items.begin(), items.end(), is_counter))
        return LooseObject::wrong("counters", "an object of numbers");
    for (const auto& item : items)
        counters.emplace(item.key(), item.value().template get<std::uint64_t>());
    return counters;
}

constexpr std::array<std::pair<StreamItem::Kind, const char*>, 5> kinds{
    {{StreamItem::Kind::out, "out"},
     {StreamItem::Kind::err, "err"},
     {StreamItem::Kind::exit, "exit"},
     {StreamItem::Kind::error, "error"},
     {StreamItem::Kind::keep_alive, "keep_alive"}}};

} // namespace

std::string encode_guest_info(const GuestInfo& info) {
    return dump({{"version", info.version},
                 {"app_id", info.app_id},
                 {"instance_id", info.instance_id},
                 {"compose_hash", info.compose_hash},
                 {"boot_id", info.boot_id},
                 {"flavour", info.flavour},
                 {"data_disk", info.data_disk}});
}

Result<GuestInfo> decode_guest_info(std::string_view json) {
    HR_TRY(const auto object, LooseObject::parse(json, max_info_bytes));
    GuestInfo info;
    HR_CHECK(object.read("version", info.version));
    HR_CHECK(object.read("app_id", info.app_id));
    HR_CHECK(object.read("instance_id", info.instance_id));
    HR_CHECK(object.read("compose_hash", info.compose_hash));
    HR_CHECK(object.read("boot_id", info.boot_id));
    HR_CHECK(object.read("flavour", info.flavour));
    HR_CHECK(object.read("data_disk", info.data_disk));
    return info;
}

std::string encode_system_info(const SystemInfo& info) {
    Json disks = Json::array();
    for (const auto& disk : info.disks)
        disks.push_back({{"name", disk.name},
                         {"mount_point", disk.mount_point},
                         {"total_size", disk.total_size},
                         {"free_size", disk.free_size}});
    return dump({{"os_name", info.os_name},
                 {"os_version", info.os_version},
                 {"kernel_version", info.kernel_version},
                 {"cpu_model", info.cpu_model},
                 {"num_cpus", info.num_cpus},
                 {"total_memory", info.total_memory},
                 {"available_memory", info.available_memory},
                 {"used_memory", info.used_memory},
                 {"free_memory", info.free_memory},
                 {"total_swap", info.total_swap},
                 {"used_swap", info.used_swap},
                 {"free_swap", info.free_swap},
                 {"uptime", info.uptime},
                 {"loadavg_one", info.loadavg_one},
                 {"loadavg_five", info.loadavg_five},
                 {"loadavg_fifteen", info.loadavg_fifteen},
                 {"disks", std::move(disks)}});
}

Result<SystemInfo> decode_system_info(std::string_view json) {
    HR_TRY(const auto object, LooseObject::parse(json, max_info_bytes));
    SystemInfo info;
    HR_CHECK(object.read("os_name", info.os_name));
    HR_CHECK(object.read("os_version", info.os_version));
    HR_CHECK(object.read("kernel_version", info.kernel_version));
    HR_CHECK(object.read("cpu_model", info.cpu_model));
    HR_CHECK(object.read("num_cpus", info.num_cpus));
    HR_CHECK(object.read("total_memory", info.total_memory));
    HR_CHECK(object.read("available_memory", info.available_memory));
    HR_CHECK(object.read("used_memory", info.used_memory));
    HR_CHECK(object.read("free_memory", info.free_memory));
    HR_CHECK(object.read("total_swap", info.total_swap));
    HR_CHECK(object.read("used_swap", info.used_swap));
    HR_CHECK(object.read("free_swap", info.free_swap));
    HR_CHECK(object.read("uptime", info.uptime));
    HR_CHECK(object.read("loadavg_one", info.loadavg_one));
    HR_CHECK(object.read("loadavg_five", info.loadavg_five));
    HR_CHECK(object.read("loadavg_fifteen", info.loadavg_fifteen));
    HR_TRY(const auto disks, objects(object, "disks", max_disks));
    for (const auto& item : disks) {
        DiskInfo disk;
        HR_CHECK(item.read("name", disk.name));
        HR_CHECK(item.read("mount_point", disk.mount_point));
        HR_CHECK(item.read("total_size", disk.total_size));
        HR_CHECK(item.read("free_size", disk.free_size));
        info.disks.push_back(std::move(disk));
    }
    return info;
}

std::string encode_services(const std::vector<ServiceStatus>& services) {
    Json list = Json::array();
    for (const auto& service : services) {
        Json item{{"name", service.name},
                  {"state", service.state},
                  {"pid", service.pid},
                  {"restarts", service.restarts},
                  {"program_sha256", service.program_sha256}};
        if (service.exit_code)
            item["exit_code"] = *service.exit_code;
        if (!service.certificate_sha256.empty())
            item["certificate_sha256"] = service.certificate_sha256;
        if (!service.replica_of.empty())
            item["replica_of"] = service.replica_of;
        if (!service.counters.empty())
            item["counters"] = service.counters;
        list.push_back(std::move(item));
    }
    return dump({{"services", std::move(list)}});
}

Result<std::vector<ServiceStatus>> decode_services(std::string_view json) {
    HR_TRY(const auto object, LooseObject::parse(json, max_services_bytes));
    HR_TRY(const auto items, objects(object, "services", max_services));
    std::vector<ServiceStatus> services;
    for (const auto& item : items) {
        ServiceStatus service;
        HR_CHECK(item.read("name", service.name));
        HR_CHECK(item.read("state", service.state));
        HR_CHECK(item.read("pid", service.pid));
        HR_CHECK(item.read("restarts", service.restarts));
        HR_CHECK(item.read("program_sha256", service.program_sha256));
        if (item.find("exit_code") != nullptr)
            HR_CHECK(item.read("exit_code", service.exit_code.emplace()));
        if (item.find("certificate_sha256") != nullptr)
            HR_CHECK(item.read("certificate_sha256", service.certificate_sha256));
        if (item.find("replica_of") != nullptr)
            HR_CHECK(item.read("replica_of", service.replica_of));
        HR_TRY(service.counters, counters_of(item));
        services.push_back(std::move(service));
    }
    return services;
}

std::string encode_logs_request(const LogsRequest& request) {
    Json json{{"service", request.service}, {"follow", request.follow}};
    if (request.tail)
        json["tail"] = *request.tail;
    return dump(json);
}

Result<LogsRequest> decode_logs_request(std::string_view json) {
    HR_TRY(const auto object, LooseObject::parse(json, max_request_bytes));
    LogsRequest request;
    HR_CHECK(object.read("service", request.service));
    HR_CHECK(object.read("follow", request.follow));
    if (object.find("tail") != nullptr)
        HR_CHECK(object.read("tail", request.tail.emplace()));
    return request;
}

std::string encode_exec_request(const ExecRequest& request) {
    Json environment = Json::object();
    for (const auto& [name, value] : request.environment)
        environment[name] = value;
    return dump({{"argv", request.argv},
                 {"environment", std::move(environment)},
                 {"stdin", base64(request.stdin_bytes)}});
}

Result<ExecRequest> decode_exec_request(std::string_view json) {
    HR_TRY(const auto object, LooseObject::parse(json, max_request_bytes));
    ExecRequest request;
    const auto* argv = object.find("argv");
    if (argv == nullptr || !argv->is_array() || argv->empty() || argv->size() > max_arguments)
        return LooseObject::wrong("argv", fmt::format("a list of 1 to {} texts", max_arguments));
    for (const auto& argument : *argv) {
        if (!argument.is_string())
            return LooseObject::wrong("argv", "a list of texts");
        request.argv.push_back(argument.get<std::string>());
    }
    if (const auto* environment = object.find("environment"); environment != nullptr) {
        if (!environment->is_object())
            return LooseObject::wrong("environment", "an object");
        for (const auto& [name, value] : environment->items()) {
            if (!value.is_string())
                return LooseObject::wrong("environment", "an object of texts");
            request.environment[name] = value.get<std::string>();
        }
    }
    std::string input;
    HR_CHECK(object.read("stdin", input));
    HR_TRY(request.stdin_bytes, bytes_of(input));
    return request;
}

std::string encode_stream_item(const StreamItem& item) {
    Json json;
    for (const auto& [kind, name] : kinds)
        if (kind == item.kind)
            json["kind"] = name;
    if (!item.service.empty())
        json["service"] = item.service;
    switch (item.kind) {
    case StreamItem::Kind::out:
    case StreamItem::Kind::err:
        json["bytes"] = base64(item.bytes);
        break;
    case StreamItem::Kind::exit:
        json["code"] = item.exit_code;
        break;
    case StreamItem::Kind::error:
        json["text"] = item.bytes;
        break;
    case StreamItem::Kind::keep_alive:
        break;
    }
    return dump(json) + "\n";
}

Result<StreamItem> decode_stream_item(std::string_view line) {
    HR_TRY(const auto object, LooseObject::parse(line, max_line_bytes));
    StreamItem item;
    std::string name;
    HR_CHECK(object.read("kind", name));
    const auto* const found = std::find_if(kinds.begin(), kinds.end(),
                                           [&](const auto& entry) { return entry.second == name; });
    if (found == kinds.end())
        return LooseObject::wrong("kind", "out, err, exit, error or keep_alive");
    item.kind = found->first;
    HR_CHECK(object.read("service", item.service));
    HR_CHECK(object.read("code", item.exit_code));
    HR_CHECK(object.read("text", item.bytes));
    if (item.kind == StreamItem::Kind::out || item.kind == StreamItem::Kind::err) {
        std::string bytes;
        HR_CHECK(object.read("bytes", bytes));
        HR_TRY(item.bytes, bytes_of(bytes));
    }
    return item;
}

} // namespace host_runner::protocol

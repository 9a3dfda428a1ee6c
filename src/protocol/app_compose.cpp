// SPDX-License-Identifier: Apache-2.0
#include "host_runner/protocol/app_compose.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <set>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "strict_json.hpp"

namespace host_runner::protocol {

namespace {

using nlohmann::json;
using nlohmann::ordered_json;
using std::chrono::milliseconds;

constexpr std::string_view our_runner = "host-runner";
/// The member `manifest_version` as dstack's guests of all versions read it.
constexpr std::uint64_t manifest_version = 2;
constexpr std::size_t max_name_bytes = 63;
constexpr std::size_t max_path_bytes = 1024;
/// Linux's MAX_ARG_STRLEN: a longer argument or variable could not be executed.
/// Source: linux include/uapi/linux/binfmts.h
constexpr std::size_t max_text_bytes = 128UL * 1024;
constexpr std::size_t max_arguments = 1024;
constexpr std::size_t max_variables = 1024;
constexpr std::size_t max_mounts = 256;
constexpr std::size_t max_outgoing = 64;
constexpr std::size_t max_authority_bytes = 300;
/// What 32-bit WebAssembly can address.
constexpr std::uint64_t max_module_memory_bytes = 4ULL << 30;
constexpr std::uint32_t max_calls = 64; // as many places as the engine's pool has
constexpr std::uint64_t max_duration_ms = 365ULL * 24 * 3600 * 1000;

struct RestartWord {
    RestartPolicy policy;
    std::string_view word;
};
constexpr std::array<RestartWord, 4> restart_words{
    {{RestartPolicy::no, "no"},
     {RestartPolicy::on_failure, "on-failure"},
     {RestartPolicy::always, "always"},
     {RestartPolicy::unless_stopped, "unless-stopped"}}};
struct ConditionWord {
    DependencyCondition condition;
    std::string_view word;
};
constexpr std::array<ConditionWord, 3> condition_words{
    {{DependencyCondition::started, "service_started"},
     {DependencyCondition::healthy, "service_healthy"},
     {DependencyCondition::completed_successfully, "service_completed_successfully"}}};

struct WorldWord {
    World world;
    std::string_view word;
};
constexpr std::array<WorldWord, 3> world_words{
    {{World::command, "command"}, {World::wasi_http, "wasi-http"}, {World::function, "function"}}};

std::string_view to_word(RestartPolicy policy) {
    return std::find_if(restart_words.begin(), restart_words.end(),
                        [&](const auto& row) { return row.policy == policy; })
        ->word;
}

std::string_view to_word(DependencyCondition condition) {
    return std::find_if(condition_words.begin(), condition_words.end(),
                        [&](const auto& row) { return row.condition == condition; })
        ->word;
}

// ---- encoding --------------------------------------------------------------------------------

ordered_json encode_health_check(const AppHealthCheck& check) {
    return {{"command", check.command},
            {"interval_ms", check.interval.count()},
            {"timeout_ms", check.timeout.count()},
            {"start_period_ms", check.start_period.count()},
            {"retries", check.retries}};
}

ordered_json encode_module(const AppModule& module) {
    ordered_json result{{"file", module.file},
                        {"world", to_string(module.world)},
                        {"memory_bytes", module.memory_bytes},
                        {"timeout_ms", module.timeout.count()}};
    if (module.world == World::function)
        result["calls"] = {{"calls", module.calls.calls},
                           {"output_bytes", module.calls.output_bytes}};
    if (!module.outgoing.empty())
        result["outgoing"] = module.outgoing;
    if (module.tls)
        result["tls"] = {{"certificate_file", module.tls->certificate_file},
                         {"key_file", module.tls->key_file}};
    return result;
}

ordered_json encode_service(const AppService& service) {
    ordered_json depends_on = ordered_json::array();
    for (const auto& dependency : service.depends_on)
        depends_on.push_back(ordered_json{{"service", dependency.service},
                                          {"condition", to_word(dependency.condition)}});
    ordered_json mounts = ordered_json::array();
    for (const auto& mount : service.mounts)
        mounts.push_back(ordered_json{{"source", mount.source},
                                      {"target", mount.target},
                                      {"read_only", mount.read_only},
                                      {"is_file", mount.is_file}});
    ordered_json result{{"name", service.name},
                        {"command", service.command},
                        {"environment", ordered_json::object()},
                        {"working_directory", service.working_directory},
                        {"user", service.user},
                        {"depends_on", std::move(depends_on)},
                        {"restart", to_word(service.restart)},
                        {"max_restarts", service.max_restarts},
                        {"stop_grace_period_ms", service.stop_grace_period.count()},
                        {"mounts", std::move(mounts)},
                        {"ports", service.ports}};
    for (const auto& [name, value] : service.environment)
        result["environment"][name] = value;
    if (service.module)
        result["module"] = encode_module(*service.module);
    if (service.health_check)
        result["health_check"] = encode_health_check(*service.health_check);
    if (service.memory_limit_bytes)
        result["memory_limit_bytes"] = *service.memory_limit_bytes;
    if (service.pids_limit)
        result["pids_limit"] = *service.pids_limit;
    if (service.replicas != 1) // what has one keeps its hash
        result["replicas"] = service.replicas;
    return result;
}

// ---- decoding --------------------------------------------------------------------------------

Result<std::vector<std::string>> decode_texts(const json& array, const std::string& where,
                                              std::size_t max_bytes) {
    std::vector<std::string> texts;
    for (const auto& item : array) {
        if (!item.is_string() || item.get_ref<const std::string&>().size() > max_bytes)
            return fail(ErrorCode::invalid_argument,
                        fmt::format("Each item of {} must be a string of at most {} bytes", where,
                                    max_bytes));
        texts.push_back(item.get<std::string>());
    }
    return texts;
}

Result<milliseconds> decode_duration(Members& members, const std::string& key) {
    HR_TRY(const auto count, members.number(key, max_duration_ms));
    return milliseconds(static_cast<milliseconds::rep>(count));
}

Result<std::uint32_t> decode_u32(Members& members, const std::string& key) {
    HR_TRY(const auto number, members.number(key, UINT32_MAX));
    return static_cast<std::uint32_t>(number);
}

template <class Rows>
auto decode_word(const std::string& word, const std::string& key, const Rows& rows)
    -> Result<typename Rows::value_type> {
    const auto found =
        std::find_if(rows.begin(), rows.end(), [&](const auto& row) { return row.word == word; });
    if (found == rows.end())
        return fail(ErrorCode::invalid_argument,
                    fmt::format("Member '{}' has the unknown word '{}'", key, word));
    return *found;
}

Result<AppHealthCheck> decode_health_check(const json& value, const std::string& where) {
    AppHealthCheck check;
    HR_TRY(auto members, Members::of(value, where));
    HR_TRY(const json* command, members.array("command", max_arguments));
    HR_TRY(check.command, decode_texts(*command, where, max_text_bytes));
    HR_TRY(check.interval, decode_duration(members, "interval_ms"));
    HR_TRY(check.timeout, decode_duration(members, "timeout_ms"));
    HR_TRY(check.start_period, decode_duration(members, "start_period_ms"));
    HR_TRY(check.retries, decode_u32(members, "retries"));
    HR_CHECK(members.finish());
    return check;
}

Result<AppDependency> decode_dependency(const json& value, const std::string& where) {
    AppDependency dependency;
    HR_TRY(auto members, Members::of(value, where));
    HR_TRY(dependency.service, members.text("service", max_name_bytes));
    HR_TRY(const auto word, members.text("condition", max_name_bytes));
    HR_TRY(const auto row, decode_word(word, "condition", condition_words));
    dependency.condition = row.condition;
    HR_CHECK(members.finish());
    return dependency;
}

Result<AppService::Mount> decode_mount(const json& value, const std::string& where) {
    AppService::Mount mount;
    HR_TRY(auto members, Members::of(value, where));
    HR_TRY(mount.source, members.text("source", max_path_bytes));
    HR_TRY(mount.target, members.text("target", max_path_bytes));
    HR_TRY(mount.read_only, members.flag("read_only"));
    HR_TRY(mount.is_file, members.flag("is_file"));
    HR_CHECK(members.finish());
    return mount;
}

Result<AppTls> decode_tls(const json& value, const std::string& where) {
    AppTls tls;
    HR_TRY(auto members, Members::of(value, where));
    HR_TRY(tls.certificate_file, members.text("certificate_file", max_path_bytes));
    HR_TRY(tls.key_file, members.text("key_file", max_path_bytes));
    HR_CHECK(members.finish());
    return tls;
}

Result<AppModule> decode_module(const json& value, const std::string& where) {
    AppModule module;
    HR_TRY(auto members, Members::of(value, where));
    HR_TRY(module.file, members.text("file", max_path_bytes));
    HR_TRY(const auto world, members.text("world", max_name_bytes));
    HR_TRY(module.world, parse_world(world));
    HR_TRY(module.memory_bytes, members.number("memory_bytes", max_module_memory_bytes));
    HR_TRY(module.timeout, decode_duration(members, "timeout_ms"));
    if (module.world == World::function) {
        HR_TRY(const json* limits, members.object("calls", 16));
        HR_TRY(auto calls, Members::of(*limits, "calls of " + where));
        HR_TRY(module.calls.calls, decode_u32(calls, "calls"));
        HR_TRY(module.calls.output_bytes, calls.number("output_bytes", UINT64_MAX));
        HR_CHECK(calls.finish());
    }
    if (members.has("outgoing")) {
        HR_TRY(const json* outgoing, members.array("outgoing", max_outgoing));
        HR_TRY(module.outgoing,
               decode_texts(*outgoing, "outgoing of " + where, max_authority_bytes));
    }
    if (members.has("tls")) {
        HR_TRY(const json* tls, members.object("tls", 16));
        HR_TRY(module.tls, decode_tls(*tls, "tls of " + where));
    }
    HR_CHECK(members.finish());
    return module;
}

Result<AppService> decode_service(const json& value) {
    AppService service;
    HR_TRY(auto members, Members::of(value, "a service"));
    HR_TRY(service.name, members.text("name", max_name_bytes));
    const std::string where = fmt::format("service '{}'", service.name);
    HR_TRY(const json* command, members.array("command", max_arguments));
    HR_TRY(service.command, decode_texts(*command, "command of " + where, max_text_bytes));
    HR_TRY(const json* environment, members.object("environment", max_variables));
    for (const auto& [name, text] : environment->items()) {
        if (!text.is_string())
            return fail(ErrorCode::invalid_argument,
                        fmt::format("Variable '{}' of {} must be a string", name, where));
        service.environment.emplace(name, text.get<std::string>());
    }
    HR_TRY(service.working_directory, members.text("working_directory", max_path_bytes));
    HR_TRY(service.user, members.text("user", max_name_bytes));
    HR_TRY(const json* depends_on, members.array("depends_on", max_services));
    for (const auto& item : *depends_on) {
        HR_TRY(auto dependency, decode_dependency(item, "a dependency of " + where));
        service.depends_on.push_back(std::move(dependency));
    }
    HR_TRY(const auto restart, members.text("restart", max_name_bytes));
    HR_TRY(const auto row, decode_word(restart, "restart", restart_words));
    service.restart = row.policy;
    HR_TRY(service.max_restarts, decode_u32(members, "max_restarts"));
    HR_TRY(service.stop_grace_period, decode_duration(members, "stop_grace_period_ms"));
    HR_TRY(const json* mounts, members.array("mounts", max_mounts));
    for (const auto& item : *mounts) {
        HR_TRY(auto mount, decode_mount(item, "a mount of " + where));
        service.mounts.push_back(std::move(mount));
    }
    HR_TRY(const json* ports, members.array("ports", UINT16_MAX));
    for (const auto& port : *ports) {
        if (!port.is_number_unsigned() || port.get<std::uint64_t>() > UINT16_MAX)
            return fail(ErrorCode::invalid_argument,
                        fmt::format("Each port of {} must be a number from 1 to 65535", where));
        service.ports.push_back(port.get<std::uint16_t>());
    }
    if (members.has("module")) {
        HR_TRY(const json* module, members.object("module", 16));
        HR_TRY(service.module, decode_module(*module, "module of " + where));
    }
    if (members.has("health_check")) {
        HR_TRY(const json* health_check, members.object("health_check", 16));
        HR_TRY(service.health_check,
               decode_health_check(*health_check, "health_check of " + where));
    }
    if (members.has("memory_limit_bytes")) {
        HR_TRY(service.memory_limit_bytes, members.number("memory_limit_bytes", UINT64_MAX));
    }
    if (members.has("pids_limit")) {
        HR_TRY(service.pids_limit, decode_u32(members, "pids_limit"));
    }
    if (members.has("replicas")) {
        HR_TRY(service.replicas, decode_u32(members, "replicas"));
    }
    HR_CHECK(members.finish());
    return service;
}

Result<AppFile> decode_file(const json& value) {
    AppFile file;
    HR_TRY(auto members, Members::of(value, "a file"));
    HR_TRY(file.name, members.text("name", max_path_bytes));
    HR_TRY(file.sha256, members.text("sha256", 64));
    HR_TRY(file.size, members.number("size", UINT64_MAX));
    HR_CHECK(members.finish());
    return file;
}

/// dstack's members that our guest has one answer for.
Result<void> decode_fixed_flag(Members& members, const std::string& key) {
    HR_TRY(const bool value, members.flag(key));
    if (value)
        return fail(ErrorCode::invalid_argument,
                    fmt::format("Member '{}' must be false for this guest", key));
    return {};
}

// ---- rules -----------------------------------------------------------------------------------

Result<void> check_text(const std::string& text, std::size_t max_bytes, const std::string& what) {
    if (text.size() > max_bytes)
        return fail(ErrorCode::invalid_argument,
                    fmt::format("{} has {} bytes, more than {}", what, text.size(), max_bytes));
    if (!is_plain_text(text))
        return fail(ErrorCode::invalid_argument,
                    fmt::format("{} must be UTF-8 text without NUL characters", what));
    return {};
}

/// The Compose Specification's pattern for names, with a length and without leading dots, because
/// names become folders in the guest.
bool is_name(const std::string& name) {
    const auto is_fine = [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               c == '_' || c == '-' || c == '.';
    };
    return !name.empty() && name.size() <= max_name_bytes && name.front() != '.' &&
           name.front() != '-' && std::all_of(name.begin(), name.end(), is_fine);
}

Result<void> check_name(const std::string& name, std::string_view what) {
    if (!is_name(name))
        return fail(ErrorCode::invalid_argument,
                    fmt::format("'{}' is no {} name: 1 to {} of A-Z a-z 0-9 _ . -, beginning "
                                "with a letter, digit or _",
                                name, what, max_name_bytes));
    return {};
}

Result<void> check_absolute_path(const std::string& path, const std::string& what) {
    HR_CHECK(check_text(path, max_path_bytes, what));
    if (path.empty() || path.front() != '/' || (path + '/').find("/../") != std::string::npos)
        return fail(
            ErrorCode::invalid_argument,
            fmt::format("{} must be an absolute path without \"..\", not '{}'", what, path));
    return {};
}

Result<void> check_command(const std::vector<std::string>& command, const std::string& what) {
    if (command.empty() || command.front().empty())
        return fail(ErrorCode::invalid_argument, fmt::format("{} names no program", what));
    if (command.size() > max_arguments)
        return fail(ErrorCode::invalid_argument,
                    fmt::format("{} has more than {} arguments", what, max_arguments));
    for (const auto& argument : command)
        HR_CHECK(check_text(argument, max_text_bytes, "An argument of " + what));
    return {};
}

Result<void> check_duration(milliseconds duration, const std::string& what) {
    if (duration.count() < 0 || static_cast<std::uint64_t>(duration.count()) > max_duration_ms)
        return fail(ErrorCode::invalid_argument,
                    fmt::format("{} must be from 0 to 365 days", what));
    return {};
}

bool has_file(const AppCompose& app, const std::string& name) {
    return std::any_of(app.files.begin(), app.files.end(),
                       [&](const auto& file) { return file.name == name; });
}

/// "HOST:PORT", of a DNS name or an address; an IPv6 address stands in brackets.
Result<void> check_authority(const std::string& authority, const std::string& where) {
    const auto colon = authority.rfind(':');
    const auto port = colon == std::string::npos ? std::string_view()
                                                 : std::string_view(authority).substr(colon + 1);
    std::uint16_t number = 0;
    const auto [end, problem] = std::from_chars(port.data(), port.data() + port.size(), number);
    const bool is_host =
        colon > 0 && colon != std::string::npos &&
        authority.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRST"
                                    "UVWXYZ0123456789.-_:[]") == std::string::npos;
    if (!is_host || problem != std::errc{} || end != port.data() + port.size() || number == 0)
        return fail(ErrorCode::invalid_argument,
                    fmt::format("'{}' of {} is nobody whom a module can ask", authority, where),
                    "write HOST:PORT, e.g. api.example.com:443");
    return {};
}

Result<void> check_module(const AppService& service, const AppCompose& app,
                          const std::string& where) {
    const auto& module = *service.module;
    if (module.world == World::wasi_http && service.ports.size() != 1)
        return fail(ErrorCode::invalid_argument,
                    fmt::format("{} answers HTTP, so it needs exactly one port", where));
    if (module.world == World::wasi_http && !service.mounts.empty())
        return fail(ErrorCode::invalid_argument,
                    fmt::format("{} mounts something, but the world {} has no files", where,
                                to_string(module.world)));
    if (module.world == World::function && !service.ports.empty())
        return fail(ErrorCode::invalid_argument,
                    fmt::format("{} has ports, but the world {} has no sockets", where,
                                to_string(module.world)),
                    "leave out ports; it is called by host_runner invoke");
    if (module.calls.calls == 0 || module.calls.calls > max_calls)
        return fail(
            ErrorCode::invalid_argument,
            fmt::format("The calls of {} at a time must be from 1 to {}", where, max_calls));
    if (!has_file(app, module.file))
        return fail(ErrorCode::invalid_argument,
                    fmt::format("{} runs the module '{}', which is no file of the app", where,
                                module.file));
    if (module.memory_bytes == 0 || module.memory_bytes > max_module_memory_bytes)
        return fail(
            ErrorCode::invalid_argument,
            fmt::format("The memory of the module of {} must be above 0 and at most 4 GiB", where));
    if (module.world == World::command && !module.outgoing.empty())
        return fail(ErrorCode::invalid_argument,
                    fmt::format("{} cannot ask others over HTTP in the world {}", where,
                                to_string(module.world)));
    for (const auto& authority : module.outgoing)
        HR_CHECK(check_authority(authority, where));
    if (const auto& tls = module.tls) {
        if (tls->certificate_file.empty() != tls->key_file.empty())
            return fail(ErrorCode::invalid_argument,
                        fmt::format("{} has a certificate or a key, but not both", where));
        for (const auto& file : {tls->certificate_file, tls->key_file})
            if (!file.empty() && !has_file(app, file))
                return fail(ErrorCode::invalid_argument,
                            fmt::format("The TLS of {} needs '{}', which is no file of the app",
                                        where, file));
    }
    return check_duration(module.timeout, "The time-out of " + where);
}

Result<void> check_mount(const AppService::Mount& mount, const AppCompose& app,
                         const std::string& where) {
    HR_CHECK(check_absolute_path(mount.target, "A mount's target in " + where));
    const bool is_known = mount.is_file ? has_file(app, mount.source)
                                        : std::find(app.volumes.begin(), app.volumes.end(),
                                                    mount.source) != app.volumes.end();
    if (!is_known)
        return fail(ErrorCode::invalid_argument,
                    fmt::format("{} mounts '{}', which is no {} of the app", where, mount.source,
                                mount.is_file ? "file" : "volume"));
    return {};
}

Result<void> check_file(const AppFile& file) {
    HR_CHECK(check_text(file.name, max_path_bytes, "A file's name"));
    const auto is_hex = [](char c) {
        return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
    };
    if (file.name.empty() || file.sha256.size() != 64 ||
        !std::all_of(file.sha256.begin(), file.sha256.end(), is_hex))
        return fail(
            ErrorCode::invalid_argument,
            fmt::format("File '{}' needs a name and a SHA-256 in lower-case hex", file.name));
    return {};
}

} // namespace

std::string_view to_string(World world) noexcept {
    return std::find_if(world_words.begin(), world_words.end(),
                        [&](const auto& row) { return row.world == world; })
        ->word;
}

Result<World> parse_world(std::string_view word) {
    const auto row = std::find_if(world_words.begin(), world_words.end(),
                                  [&](const auto& entry) { return entry.word == word; });
    if (row == world_words.end())
        return fail(ErrorCode::invalid_argument, fmt::format("'{}' is not a world", word),
                    "the worlds of this version are: command, wasi-http, function");
    return row->world;
}

std::vector<std::string> replica_names(const AppService& service) {
    if (service.replicas == 1)
        return {service.name};
    std::vector<std::string> names;
    for (std::uint32_t i = 1; i <= service.replicas; ++i)
        names.push_back(fmt::format("{}-{}", service.name, i));
    return names;
}

Result<void> check_replicas(const AppService& service) {
    if (service.replicas == 0 || service.replicas > max_services)
        return fail(ErrorCode::invalid_argument,
                    fmt::format("service '{}' must have 1 to {} replicas, not {}", service.name,
                                max_services, service.replicas));
    if (service.replicas > 1 && !service.module && !service.ports.empty())
        return fail(ErrorCode::invalid_argument,
                    fmt::format("service '{}' is a program with ports, for which its {} replicas "
                                "would fight",
                                service.name, service.replicas),
                    "only WebAssembly services share a port: leave out the ports or the replicas");
    return {};
}

bool is_plain_text(std::string_view text) {
    if (text.find('\0') != std::string_view::npos)
        return false;
    try {
        static_cast<void>(json(text).dump()); // the library checks UTF-8 when it writes
        return true;
    } catch (const json::exception&) {
        return false;
    }
}

Result<void> check_app_service(const AppService& service, const AppCompose& app) {
    HR_CHECK(check_name(service.name, "service"));
    const std::string where = fmt::format("service '{}'", service.name);
    HR_CHECK(check_command(service.command, "the command of " + where));
    if (service.module)
        HR_CHECK(check_module(service, app, where));
    if (service.environment.size() > max_variables)
        return fail(ErrorCode::invalid_argument,
                    fmt::format("{} has more than {} variables", where, max_variables));
    for (const auto& [name, value] : service.environment) {
        HR_CHECK(check_text(name, max_path_bytes, "A variable's name in " + where));
        if (name.empty() || name.find('=') != std::string::npos)
            return fail(ErrorCode::invalid_argument,
                        fmt::format("'{}' in {} is no name of a variable", name, where));
        HR_CHECK(
            check_text(value, max_text_bytes, fmt::format("Variable '{}' of {}", name, where)));
    }
    if (!service.working_directory.empty())
        HR_CHECK(
            check_absolute_path(service.working_directory, "The working directory of " + where));
    HR_CHECK(check_text(service.user, max_name_bytes, "The user of " + where));
    if (service.health_check) {
        const std::string what = "the health check of " + where;
        HR_CHECK(check_command(service.health_check->command, what));
        HR_CHECK(check_duration(service.health_check->interval, "The interval of " + what));
        HR_CHECK(check_duration(service.health_check->timeout, "The time-out of " + what));
        HR_CHECK(check_duration(service.health_check->start_period, "The start period of " + what));
        if (service.health_check->interval.count() == 0 ||
            service.health_check->timeout.count() == 0 || service.health_check->retries == 0)
            return fail(ErrorCode::invalid_argument,
                        fmt::format("Interval, time-out and retries of {} must be above 0", what));
    }
    HR_CHECK(check_duration(service.stop_grace_period, "The stop grace period of " + where));
    if (service.memory_limit_bytes == 0U || service.pids_limit == 0U)
        return fail(ErrorCode::invalid_argument,
                    fmt::format("The limits of {} must be above 0", where));
    HR_CHECK(check_replicas(service));
    if (service.mounts.size() > max_mounts)
        return fail(ErrorCode::invalid_argument,
                    fmt::format("{} has more than {} mounts", where, max_mounts));
    std::set<std::string> targets;
    for (const auto& mount : service.mounts) {
        HR_CHECK(check_mount(mount, app, where));
        if (!targets.insert(mount.target).second)
            return fail(ErrorCode::invalid_argument,
                        fmt::format("{} mounts two things on {}", where, mount.target));
    }
    if (std::find(service.ports.begin(), service.ports.end(), 0) != service.ports.end())
        return fail(ErrorCode::invalid_argument, fmt::format("{} has port 0", where));
    return {};
}

Result<std::vector<std::size_t>> start_order(const std::vector<AppService>& services) {
    std::map<std::string_view, std::size_t> index_of;
    for (std::size_t i = 0; i < services.size(); ++i)
        index_of.emplace(services[i].name, i);
    // Each round takes the first service whose dependencies are all there.
    std::vector<std::size_t> order;
    std::vector<bool> is_taken(services.size(), false);
    const auto is_open = [&](const AppDependency& dependency) {
        return !is_taken[index_of.at(dependency.service)];
    };
    for (const auto& service : services)
        for (const auto& dependency : service.depends_on)
            if (!index_of.contains(dependency.service))
                return fail(ErrorCode::invalid_argument,
                            fmt::format("Service '{}' depends on '{}', which is not there",
                                        service.name, dependency.service));
    while (order.size() < services.size()) {
        const auto before = order.size();
        for (std::size_t i = 0; i < services.size(); ++i) {
            const auto& needs = services[i].depends_on;
            if (is_taken[i] || std::any_of(needs.begin(), needs.end(), is_open))
                continue;
            is_taken[i] = true;
            order.push_back(i);
        }
        if (order.size() > before)
            continue;
        // All that is left depends on something left: following that leads into the cycle.
        std::size_t at = 0;
        while (is_taken[at])
            ++at;
        std::vector<std::size_t> path;
        while (std::find(path.begin(), path.end(), at) == path.end()) {
            path.push_back(at);
            const auto& needs = services[at].depends_on;
            at = index_of.at(std::find_if(needs.begin(), needs.end(), is_open)->service);
        }
        std::string text;
        for (auto it = std::find(path.begin(), path.end(), at); it != path.end(); ++it)
            text += services[*it].name + " -> ";
        return fail(ErrorCode::invalid_argument,
                    fmt::format("Services depend on each other in a circle: {}{}", text,
                                services[at].name));
    }
    return order;
}

Result<void> check_app_compose(const AppCompose& app) {
    HR_CHECK(check_name(app.name, "app"));
    if (app.services.size() > max_services || app.files.size() > max_files ||
        app.volumes.size() > max_files)
        return fail(ErrorCode::invalid_argument,
                    fmt::format("An app has at most {} services, {} files and {} volumes",
                                max_services, max_files, max_files));
    std::set<std::string> volumes;
    for (const auto& volume : app.volumes) {
        HR_CHECK(check_name(volume, "volume"));
        if (!volumes.insert(volume).second)
            return fail(ErrorCode::invalid_argument,
                        fmt::format("Volume '{}' is there twice", volume));
    }
    std::set<std::string> files;
    for (const auto& file : app.files) {
        HR_CHECK(check_file(file));
        if (!files.insert(file.name).second)
            return fail(ErrorCode::invalid_argument,
                        fmt::format("File '{}' is there twice", file.name));
    }
    std::set<std::string> names;
    std::size_t processes = 0;
    for (const auto& service : app.services) {
        HR_CHECK(check_app_service(service, app));
        if (!names.insert(service.name).second)
            return fail(ErrorCode::invalid_argument,
                        fmt::format("Service '{}' is there twice", service.name));
        processes += service.replicas;
    }
    if (processes > max_services)
        return fail(ErrorCode::invalid_argument,
                    fmt::format("An app has at most {} services with all their replicas, not {}",
                                max_services, processes));
    for (const auto& service : app.services)
        for (const auto& name : replica_names(service))
            if (name != service.name && !names.insert(name).second)
                return fail(ErrorCode::invalid_argument,
                            fmt::format("The name '{}' is that of a replica of service '{}' and of "
                                        "another service",
                                        name, service.name));
    HR_CHECK(start_order(app.services));
    return {};
}

std::string encode_app_compose(const AppCompose& app) {
    ordered_json services = ordered_json::array();
    for (const auto& service : app.services)
        services.push_back(encode_service(service));
    ordered_json files = ordered_json::array();
    for (const auto& file : app.files)
        files.push_back(
            ordered_json{{"name", file.name}, {"sha256", file.sha256}, {"size", file.size}});
    const ordered_json result{{"manifest_version", manifest_version},
                              {"name", app.name},
                              {"runner", our_runner},
                              {"kms_enabled", false},
                              {"gateway_enabled", false},
                              {"local_key_provider_enabled", app.local_key_provider},
                              {"public_logs", false},
                              {"public_sysinfo", false},
                              {"secure_time", false},
                              {"no_instance_id", false},
                              {"power_off_when_done", app.power_off_when_done},
                              {"egress", app.egress},
                              {"volumes", app.volumes},
                              {"files", std::move(files)},
                              {"services", std::move(services)}};
    try {
        return result.dump() + "\n";
    } catch (const json::exception&) {
        abort_on_bug(__FILE__, __LINE__, "the app passed check_app_compose()");
    }
}

Result<AppCompose> decode_app_compose(std::string_view text) {
    HR_TRY(const auto value,
           parse_strict(text, {.max_bytes = max_app_compose_json_bytes, .max_depth = 16}));
    AppCompose app;
    HR_TRY(auto members, Members::of(value, "app-compose.json"));
    HR_TRY(const auto runner, members.text("runner", max_name_bytes));
    if (runner != our_runner)
        return fail(ErrorCode::invalid_argument,
                    fmt::format("app-compose.json is for the runner '{}', this guest is for "
                                "'{}'",
                                runner, our_runner));
    HR_TRY(const auto version, members.number("manifest_version", UINT32_MAX));
    if (version != manifest_version)
        return fail(ErrorCode::invalid_argument,
                    fmt::format("app-compose.json has manifest_version {}, this guest reads {}",
                                version, manifest_version));
    HR_TRY(app.name, members.text("name", max_name_bytes));
    for (const auto* key : {"kms_enabled", "gateway_enabled", "public_logs", "public_sysinfo",
                            "secure_time", "no_instance_id"})
        HR_CHECK(decode_fixed_flag(members, key));
    HR_TRY(app.local_key_provider, members.flag("local_key_provider_enabled"));
    HR_TRY(app.power_off_when_done, members.flag("power_off_when_done"));
    HR_TRY(app.egress, members.flag("egress"));
    HR_TRY(const json* volumes, members.array("volumes", max_files));
    HR_TRY(app.volumes, decode_texts(*volumes, "volumes", max_name_bytes));
    HR_TRY(const json* files, members.array("files", max_files));
    for (const auto& item : *files) {
        HR_TRY(auto file, decode_file(item));
        app.files.push_back(std::move(file));
    }
    HR_TRY(const json* services, members.array("services", max_services));
    for (const auto& item : *services) {
        HR_TRY(auto service, decode_service(item));
        app.services.push_back(std::move(service));
    }
    HR_CHECK(members.finish());
    HR_CHECK(check_app_compose(app));
    return app;
}

} // namespace host_runner::protocol

// SPDX-License-Identifier: Apache-2.0
#include "host_runner/spec/compose.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <limits>
#include <optional>
#include <set>

#include <sys/stat.h>

#include <fmt/format.h>

#include "compose_ports.hpp"
#include "host_runner/base/files.hpp"
#include "host_runner/base/units.hpp"
#include "host_runner/crypto/digest.hpp"
#include "host_runner/spec/oci_layout.hpp"
#include "host_runner/spec/wasm_module.hpp"
#include "shell_words.hpp"
#include "text.hpp"
#include "yaml_value.hpp"

namespace host_runner::spec {

namespace {

using protocol::AppDependency;
using protocol::AppHealthCheck;
using protocol::AppService;
using protocol::DependencyCondition;
using protocol::RestartPolicy;
using std::chrono::milliseconds;

/// dstack's guests up to 0.5.11 read no larger app-compose.json, and the file's text is a part of
/// it. Source: dstack v0.5.11 dstack-util, host-shared copy limits.
constexpr std::size_t max_compose_bytes = 256 * kib;
/// Of all files together, so that they fit on the share disk.
constexpr std::uint64_t max_files_bytes = 100 * mib;

// ---- what kind of program a service is
// -----------------------------------------------------------

enum class Kind { program, wasm, container };

/// From `image`, `build` and `platform` alone, so that it also works on files full of keys that
/// only a container engine knows.
Result<Kind> kind_of(const YamlValue& service, const std::string& folder, std::string& image) {
    HR_TRY(const auto entries, service.entries());
    std::string platform;
    bool has_image = false;
    for (const auto& entry : entries) {
        if (entry.key == "build") {
            has_image = true;
            image = "(built from sources)";
        } else if (entry.key == "image" && entry.value.is_text()) {
            has_image = true;
            HR_TRY(image, entry.value.raw_text());
        } else if (entry.key == "platform" && entry.value.is_text()) {
            HR_TRY(platform, entry.value.raw_text());
        }
    }
    const bool is_layout =
        has_image && path_exists(join_path(join_path(folder, image), "oci-layout"));
    if (platform.starts_with("wasi/") || image.ends_with(".wasm") || is_layout)
        return Kind::wasm;
    return has_image ? Kind::container : Kind::program;
}

std::string folder_of(const std::string& path) {
    return parent_path(path);
}

/// "dir/hello.yaml" -> "hello": the same file gives the same name wherever it lies.
std::string name_from(const std::string& path) {
    std::string name = base_name(path);
    if (const auto dot = name.rfind('.'); dot != std::string::npos && dot > 0)
        name.resize(dot);
    return name;
}

// ---- parts of a service
// --------------------------------------------------------------------------

/// One string, split as a shell would, or a list.
Result<std::vector<std::string>> read_command(const YamlValue& value) {
    if (value.is_list())
        return value.texts();
    return value.parsed([](const std::string& text) { return split_words(text); });
}

Result<void> add_variable(const YamlValue& place, const std::string& name,
                          const std::optional<std::string>& value, AppService& service) {
    if (!value)
        return place.fail(
            fmt::format("The variable {} has no value; that of the host's environment "
                        "would not be measured",
                        name),
            fmt::format("write {}: value, or give it by --env-file", name));
    if (!service.environment.emplace(name, *value).second)
        return place.fail(fmt::format("The variable {} is there twice", name));
    return {};
}

Result<void> read_environment(const YamlValue& value, AppService& service) {
    if (value.is_list()) {
        HR_TRY(const auto items, value.items());
        for (const auto& item : items) {
            HR_TRY(const auto text, item.text());
            const auto equals = text.find('=');
            std::optional<std::string> content;
            if (equals != std::string::npos)
                content = text.substr(equals + 1);
            HR_CHECK(add_variable(item, text.substr(0, equals), content, service));
        }
        return {};
    }
    HR_TRY(const auto entries, value.entries());
    for (const auto& entry : entries) {
        std::optional<std::string> content;
        if (!entry.value.is_null()) {
            HR_TRY(content, entry.value.text());
        }
        HR_CHECK(add_variable(entry.at_key, entry.key, content, service));
    }
    return {};
}

Result<DependencyCondition> parse_condition(const std::string& word) {
    if (word == "service_started")
        return DependencyCondition::started;
    if (word == "service_healthy")
        return DependencyCondition::healthy;
    if (word == "service_completed_successfully")
        return DependencyCondition::completed_successfully;
    return fail(ErrorCode::invalid_argument, fmt::format("'{}' is not a condition", word),
                "service_started, service_healthy or service_completed_successfully");
}

/// A dependency and where it was written: whether the service exists is known at the end.
struct Dependency {
    YamlValue place;
    AppDependency value;
};

Result<std::vector<Dependency>> read_depends_on(const YamlValue& value) {
    std::vector<Dependency> result;
    if (value.is_list()) {
        HR_TRY(const auto items, value.items());
        for (const auto& item : items) {
            HR_TRY(auto name, item.text());
            result.push_back({item, {std::move(name), DependencyCondition::started}});
        }
        return result;
    }
    HR_TRY(const auto entries, value.entries());
    for (const auto& entry : entries) {
        Dependency dependency{entry.at_key, {entry.key, DependencyCondition::started}};
        if (!entry.value.is_null()) {
            HR_TRY(const auto fields, entry.value.fields({"condition"}));
            if (const auto* condition = fields.find("condition")) {
                HR_TRY(dependency.value.condition, condition->parsed(parse_condition));
            }
        }
        result.push_back(std::move(dependency));
    }
    return result;
}

Result<void> read_restart(const YamlValue& value, AppService& service) {
    HR_TRY(const auto word, value.text());
    const auto colon = word.find(':');
    const auto policy = word.substr(0, colon);
    if (policy == "on-failure") {
        service.restart = RestartPolicy::on_failure;
        if (colon == std::string::npos)
            return {};
        const auto count = parse_number<std::uint32_t>(std::string_view(word).substr(colon + 1));
        if (count && *count > 0) {
            service.max_restarts = *count;
            return {};
        }
    } else if (word == "no") {
        return {};
    } else if (word == "always") {
        service.restart = RestartPolicy::always;
        return {};
    } else if (word == "unless-stopped") {
        service.restart = RestartPolicy::unless_stopped;
        return {};
    }
    return value.fail(fmt::format("'{}' is not a restart policy", word),
                      "no, always, unless-stopped, on-failure or on-failure:5");
}

Result<std::vector<std::string>> read_health_command(const YamlValue& value, bool& is_off) {
    if (value.is_text()) {
        HR_TRY(auto text, value.text());
        return std::vector<std::string>{"/bin/sh", "-c", std::move(text)};
    }
    HR_TRY(auto words, value.texts());
    const std::string kind = words.empty() ? "" : words.front();
    if (kind == "NONE") {
        is_off = true;
        return std::vector<std::string>{};
    }
    if (kind == "CMD-SHELL" && words.size() == 2)
        return std::vector<std::string>{"/bin/sh", "-c", words[1]};
    if (kind == "CMD" && words.size() >= 2) {
        words.erase(words.begin());
        return words;
    }
    return value.fail("A health check's list begins with CMD, CMD-SHELL or NONE",
                      "test: [CMD, wget, -q, -O, /dev/null, \"http://127.0.0.1:8080/\"]");
}

Result<void> read_health_check(const YamlValue& value, AppService& service) {
    HR_TRY(const auto fields,
           value.fields({"test", "interval", "timeout", "retries", "start_period", "disable"}));
    bool is_off = false;
    if (const auto* disable = fields.find("disable")) {
        HR_TRY(is_off, disable->flag());
    }
    AppHealthCheck check;
    const auto* test = fields.find("test");
    if (test != nullptr) {
        HR_TRY(check.command, read_health_command(*test, is_off));
    } else if (!is_off) {
        return value.fail("A health check needs a test", "test: [CMD, PROGRAM, ARGUMENT]");
    }
    const auto read_duration = [&](const char* key, milliseconds& out) -> Result<void> {
        if (const auto* duration = fields.find(key)) {
            HR_TRY(out,
                   duration->parsed([](const std::string& text) { return parse_duration(text); }));
        }
        return {};
    };
    HR_CHECK(read_duration("interval", check.interval));
    HR_CHECK(read_duration("timeout", check.timeout));
    HR_CHECK(read_duration("start_period", check.start_period));
    if (const auto* retries = fields.find("retries")) {
        HR_TRY(const auto number, retries->number(1, std::numeric_limits<std::uint32_t>::max()));
        check.retries = static_cast<std::uint32_t>(number);
    }
    if (!is_off)
        service.health_check = std::move(check);
    return {};
}

Result<std::vector<PortMapping>> read_port(const YamlValue& value) {
    if (!value.is_map())
        return value.parsed([](const std::string& text) { return parse_compose_port(text); });
    HR_TRY(const auto fields, value.fields({"target", "published", "host_ip", "protocol"}));
    const auto read = [&](const char* key) -> Result<std::string> {
        const auto* field = fields.find(key);
        if (field == nullptr)
            return std::string();
        return field->text();
    };
    HR_TRY(const auto target, read("target"));
    HR_TRY(const auto published, read("published"));
    HR_TRY(const auto host_ip, read("host_ip"));
    HR_TRY(const auto protocol_name, read("protocol"));
    return make_compose_ports(published + ":" + target, {host_ip, published, target, protocol_name})
        .map_error([&](Error error) { return value.locate(std::move(error)); });
}

/// Sizes as Compose has them: a bare number is bytes, not MiB as on the command line.
Result<std::uint64_t> parse_compose_size(const std::string& text) {
    const bool is_bare = parse_number<std::uint64_t>(text).has_value();
    return parse_size(is_bare ? text + "B" : text);
}

Result<void> read_memory_limit(const YamlValue& value, AppService& service) {
    if (service.memory_limit_bytes)
        return value.fail("The memory limit is there twice", "keep mem_limit or x-limits.memory");
    HR_TRY(service.memory_limit_bytes, value.parsed(parse_compose_size));
    return {};
}

Result<void> read_pids_limit(const YamlValue& value, AppService& service) {
    if (service.pids_limit)
        return value.fail("The limit of processes is there twice",
                          "keep pids_limit or x-limits.pids");
    HR_TRY(const auto word, value.text());
    if (word == "-1") // Compose's word for no limit
        return {};
    HR_TRY(const auto number, value.number(1, std::numeric_limits<std::uint32_t>::max()));
    service.pids_limit = static_cast<std::uint32_t>(number);
    return {};
}

/// `deploy: {replicas: N}`, and the older `scale: N`.
Result<void> read_replicas(const YamlValue::Fields& fields, AppService& service) {
    const YamlValue* deploy = fields.find("deploy");
    const YamlValue* scale = fields.find("scale");
    std::optional<YamlValue> count;
    if (deploy != nullptr) {
        HR_TRY(const auto inner, deploy->fields({"replicas"}));
        if (const auto* replicas = inner.find("replicas"))
            count = *replicas;
    }
    if (scale != nullptr) {
        if (count)
            return scale->fail("The number of replicas is there twice",
                               "keep deploy: {replicas: N} or scale: N");
        count = *scale;
    }
    if (!count)
        return {};
    HR_TRY(const auto number, count->number(1, protocol::max_services));
    service.replicas = static_cast<std::uint32_t>(number);
    return protocol::check_replicas(service).map_error(
        [&](Error error) { return count->locate(std::move(error)); });
}

// ---- the whole file
// ------------------------------------------------------------------------------

class Resolver {
public:
    Resolver(const Compose& compose, const std::map<std::string, std::string>& environment)
        : folder_(folder_of(compose.path)), environment_(environment) {
        result_.app.name = compose.name;
    }

    Result<ResolvedCompose> resolve(const YamlValue& root) {
        HR_CHECK(refuse_other_kinds(root));
        HR_TRY(const auto fields, root.fields({"name", "version", "services", "volumes"}));
        if (const auto* power_off = fields.find("x-power-off")) {
            HR_TRY(result_.app.power_off_when_done, power_off->flag());
        }
        if (const auto* egress = fields.find("x-egress")) {
            HR_TRY(result_.app.egress, egress->flag());
        }
        if (const auto* volumes = fields.find("volumes"))
            HR_CHECK(read_volumes(*volumes));
        const auto* services = fields.find("services");
        HR_TRY(const auto entries, services->entries());
        for (const auto& entry : entries)
            HR_CHECK(read_service(entry));
        HR_CHECK(check_dependencies());
        if (auto checked = protocol::check_app_compose(result_.app); !checked)
            return tl::unexpected<Error>(services->locate(std::move(checked).error()));
        return std::move(result_);
    }

private:
    /// First of all, so that a file for a container engine is told so, and not which of its keys
    /// comes first.
    Result<void> refuse_other_kinds(const YamlValue& root) const {
        HR_TRY(const auto top, root.entries());
        for (const auto& part : top) {
            if (part.key == "secrets")
                return part.at_key.fail(
                    "Secrets are not in this version yet",
                    "the host can read everything that a compose file holds: do "
                    "not put secrets there",
                    ErrorCode::unsupported);
            if (part.key != "services")
                continue;
            HR_TRY(const auto services, part.value.entries());
            for (const auto& service : services) {
                std::string image;
                HR_TRY(const auto kind, kind_of(service.value, folder_, image));
                if (kind == Kind::container)
                    return service.at_key.fail(
                        fmt::format("Service '{}' wants the container image {}, but the guest of "
                                    "this VM image has no container engine",
                                    service.key, image),
                        "use a dstack image, or run a program of this image: command: [PROGRAM, "
                        "ARGUMENT] without image:",
                        ErrorCode::unsupported);
            }
        }
        return {};
    }

    Result<void> read_volumes(const YamlValue& volumes) {
        if (volumes.is_null())
            return {};
        HR_TRY(const auto entries, volumes.entries());
        for (const auto& entry : entries) {
            if (!entry.value.is_null())
                HR_CHECK(entry.value.fields({}));
            result_.app.volumes.push_back(entry.key);
        }
        return {};
    }

    Result<void> read_service(const YamlValue::Entry& entry) {
        AppService service;
        service.name = entry.key;
        std::string image;
        HR_TRY(const auto kind, kind_of(entry.value, folder_, image));
        HR_TRY(const auto fields,
               kind == Kind::wasm
                   ? entry.value.fields({"image", "platform", "command", "environment",
                                         "depends_on", "restart", "healthcheck", "ports", "volumes",
                                         "user", "stop_grace_period", "mem_limit", "pids_limit",
                                         "deploy", "scale"})
                   : entry.value.fields({"command", "entrypoint", "environment", "depends_on",
                                         "restart", "healthcheck", "ports", "volumes",
                                         "working_dir", "user", "stop_grace_period", "mem_limit",
                                         "pids_limit", "deploy", "scale"}));
        if (kind == Kind::wasm)
            HR_CHECK(read_module(entry, fields, image, service));
        // An entry point comes before the command, as in Compose.
        for (const auto* key : {"entrypoint", "command"})
            if (const auto* value = fields.find(key)) {
                HR_TRY(const auto words, read_command(*value));
                service.command.insert(service.command.end(), words.begin(), words.end());
            }
        if (service.command.empty())
            return entry.at_key.fail(fmt::format("Service '{}' names no program", entry.key),
                                     "command: [PROGRAM, ARGUMENT]");
        if (const auto* value = fields.find("environment"))
            HR_CHECK(read_environment(*value, service));
        // What the service says itself wins, as with Docker's env_file.
        service.environment.insert(environment_.begin(), environment_.end());
        if (const auto* value = fields.find("depends_on")) {
            HR_TRY(auto dependencies, read_depends_on(*value));
            for (auto& dependency : dependencies) {
                service.depends_on.push_back(dependency.value);
                dependencies_.push_back(std::move(dependency));
            }
        }
        if (const auto* value = fields.find("restart"))
            HR_CHECK(read_restart(*value, service));
        if (const auto* value = fields.find("healthcheck"))
            HR_CHECK(read_health_check(*value, service));
        if (const auto* value = fields.find("ports"))
            HR_CHECK(read_ports(*value, service));
        if (const auto* value = fields.find("volumes"))
            HR_CHECK(read_mounts(*value, service));
        if (const auto* value = fields.find("working_dir")) {
            HR_TRY(service.working_directory, value->text());
        }
        if (const auto* value = fields.find("user")) {
            HR_TRY(service.user, value->text());
        }
        if (const auto* value = fields.find("stop_grace_period")) {
            HR_TRY(service.stop_grace_period,
                   value->parsed([](const std::string& text) { return parse_duration(text); }));
        }
        if (const auto* value = fields.find("mem_limit"))
            HR_CHECK(read_memory_limit(*value, service));
        if (const auto* value = fields.find("pids_limit"))
            HR_CHECK(read_pids_limit(*value, service));
        if (const auto* value = fields.find("x-limits"))
            HR_CHECK(read_limits(*value, service));
        HR_CHECK(read_replicas(fields, service));
        if (const auto* value = fields.find("x-outgoing"); value != nullptr && !service.module)
            return value->fail("x-outgoing is for WebAssembly services only", "remove it");
        if (const auto* value = fields.find("x-tls"); value != nullptr && !service.module)
            return value->fail("x-tls is for WebAssembly services only",
                               "a program does its own TLS; give it the files as volumes");
        if (const auto* value = fields.find("x-world"); value != nullptr && !service.module)
            return value->fail("x-world is for WebAssembly services only",
                               "remove it, or name a module: image: ./NAME.wasm");
        if (auto checked = protocol::check_app_service(service, result_.app); !checked)
            return tl::unexpected<Error>(entry.at_key.locate(std::move(checked).error()));
        result_.app.services.push_back(std::move(service));
        return {};
    }

    /// The file of a WebAssembly service, its world, and its argv[0].
    Result<void> read_module(const YamlValue::Entry& entry, const YamlValue::Fields& fields,
                             const std::string& image, AppService& service) {
        const auto* place = fields.find("image");
        if (place == nullptr)
            return entry.at_key.fail(fmt::format("Service '{}' names no module", entry.key),
                                     "image: ./NAME.wasm");
        if (const auto* platform = fields.find("platform")) {
            HR_TRY(const auto word, platform->text());
            if (word != "wasi/wasm" && word != "wasi/wasm32")
                return platform->fail(fmt::format("'{}' is no platform of this guest", word),
                                      "wasi/wasm");
        }
        const auto at_place = [&](Error error) {
            return place->locate(std::move(error));
        };
        const auto file = [&]() -> const LocalFile& {
            return *std::find_if(result_.files.begin(), result_.files.end(),
                                 [&](const auto& each) { return each.entry.name == image; });
        };
        const auto layout = join_path(folder_, image);
        if (path_exists(join_path(layout, "oci-layout"))) {
            HR_TRY(const auto found, find_oci_module(layout).map_error(at_place));
            HR_CHECK(add_file(*place, image, found.path));
            if (file().entry.sha256 != found.descriptor.sha256)
                return place->fail(
                    fmt::format("The module in {} is not the one of its manifest", image),
                    "copy it again from its registry", ErrorCode::corrupt_data);
        } else {
            HR_CHECK(add_file(*place, image));
        }
        HR_TRY(const auto bytes, read_file(file().path, max_files_bytes).map_error(at_place));
        HR_TRY(const auto module, describe_wasm(bytes).map_error(at_place));
        service.module = protocol::AppModule{};
        service.module->file = image;
        // A world that is named must fit too: what is wrong is better known now than in the guest.
        HR_TRY(service.module->world, guess_world(module).map_error(at_place));
        if (const auto* value = fields.find("x-world")) {
            HR_TRY(const auto named, value->parsed(protocol::parse_world));
            if (named == protocol::World::function)
                service.module->world = named; // either kind of module, run in another way
            if (named != service.module->world)
                return value->fail(fmt::format("{} is a module for the world {}", image,
                                               to_string(service.module->world)),
                                   "leave out x-world, or name that one");
        }
        service.command.push_back(base_name(image));
        if (const auto* value = fields.find("volumes"); value != nullptr && module.is_component)
            return value->fail("A component has no files", "remove the volumes");
        if (const auto* value = fields.find("x-outgoing"); value != nullptr && !module.is_component)
            return value->fail("x-outgoing is for components only", "remove it");
        if (const auto* value = fields.find("x-outgoing")) {
            HR_TRY(service.module->outgoing, value->texts());
        }
        if (const auto* value = fields.find("x-tls"))
            HR_CHECK(read_tls(*value, *service.module));
        return {};
    }

    /// "self-signed", or the PEM files of a certificate and its key.
    Result<void> read_tls(const YamlValue& value, protocol::AppModule& module) {
        module.tls.emplace();
        if (value.is_text()) {
            HR_TRY(const auto word, value.text());
            if (word != "self-signed")
                return value.fail(fmt::format("'{}' is no kind of TLS", word),
                                  "x-tls: self-signed, or x-tls: {certificate: ./FILE.pem, key: "
                                  "./FILE.pem}");
            return {};
        }
        HR_TRY(const auto fields, value.fields({"certificate", "key"}));
        for (const auto& [key, name] : {std::pair("certificate", &module.tls->certificate_file),
                                        std::pair("key", &module.tls->key_file)}) {
            const auto* file = fields.find(key);
            if (file == nullptr)
                return value.fail(fmt::format("TLS needs the file of the {}", key),
                                  "x-tls: {certificate: ./FILE.pem, key: ./FILE.pem}");
            HR_TRY(*name, file->text());
            HR_CHECK(add_file(*file, *name));
        }
        return {};
    }

    static Result<void> read_module_limit(const YamlValue::Entry& entry,
                                          protocol::AppModule& module) {
        if (entry.key == "memory") {
            HR_TRY(module.memory_bytes, entry.value.parsed(parse_compose_size));
            return {};
        }
        if (entry.key == "timeout") {
            HR_TRY(module.timeout, entry.value.parsed([](const std::string& text) {
                return parse_duration(text);
            }));
            return {};
        }
        const bool is_function = module.world == protocol::World::function;
        if (is_function && entry.key == "calls") {
            HR_TRY(const auto number, entry.value.number(1, std::numeric_limits<int>::max()));
            module.calls.calls = static_cast<std::uint32_t>(number);
            return {};
        }
        if (is_function && entry.key == "output") {
            HR_TRY(const auto word, entry.value.text());
            module.calls.output_bytes = 0;
            if (word != "none") {
                HR_TRY(module.calls.output_bytes, entry.value.parsed(parse_compose_size));
            }
            return {};
        }
        return entry.at_key.fail(fmt::format("The limit '{}' is not known for a module of the "
                                             "world {}",
                                             entry.key, to_string(module.world)),
                                 is_function ? "known are: memory, timeout, pids, calls, output"
                                             : "known are: memory, timeout, pids");
    }

    static Result<void> read_limits(const YamlValue& value, AppService& service) {
        HR_TRY(const auto entries, value.entries());
        for (const auto& entry : entries) {
            if (entry.key == "pids")
                HR_CHECK(read_pids_limit(entry.value, service));
            else if (service.module)
                HR_CHECK(read_module_limit(entry, *service.module));
            else if (entry.key == "memory")
                HR_CHECK(read_memory_limit(entry.value, service));
            else
                return entry.at_key.fail(
                    fmt::format("The limit '{}' is not known for a program", entry.key),
                    "known are: memory, pids");
        }
        return {};
    }

    Result<void> read_ports(const YamlValue& value, AppService& service) {
        HR_TRY(const auto items, value.items());
        for (const auto& item : items) {
            HR_TRY(const auto mappings, read_port(item));
            for (const auto& mapping : mappings) {
                if (service.module && mapping.protocol != Protocol::tcp)
                    return item.fail("A WebAssembly service gets TCP sockets only",
                                     "leave out /udp");
                for (const auto& other : result_.ports)
                    if (conflicts(other, mapping))
                        return item.fail(fmt::format("{} and {} cannot both be forwarded",
                                                     format_port_mapping(other),
                                                     format_port_mapping(mapping)),
                                         "choose another host port for one of them");
                result_.ports.push_back(mapping);
                if (std::find(service.ports.begin(), service.ports.end(), mapping.guest_port) ==
                    service.ports.end())
                    service.ports.push_back(mapping.guest_port);
            }
        }
        return {};
    }

    Result<void> read_mounts(const YamlValue& value, AppService& service) {
        HR_TRY(const auto items, value.items());
        for (const auto& item : items) {
            AppService::Mount mount;
            if (item.is_map()) {
                HR_CHECK(read_long_mount(item, mount));
            } else {
                HR_TRY(const auto text, item.text());
                const auto parts = split(text, ':');
                if (parts.size() < 2 || parts.size() > 3 ||
                    (parts.size() == 3 && parts[2] != "ro" && parts[2] != "rw"))
                    return item.fail(fmt::format("'{}' is not a volume", text),
                                     "write NAME:/path/in/guest or ./file:/path/in/guest, with :ro "
                                     "for read-only");
                mount.source = parts[0];
                mount.target = parts[1];
                mount.read_only = parts.size() == 3 && parts[2] == "ro";
                mount.is_file =
                    !mount.source.empty() &&
                    std::string_view("./~").find(mount.source.front()) != std::string_view::npos;
            }
            const auto& volumes = result_.app.volumes;
            if (mount.is_file)
                HR_CHECK(add_file(item, mount.source));
            else if (std::find(volumes.begin(), volumes.end(), mount.source) == volumes.end())
                return item.fail(
                    fmt::format("The volume '{}' is not declared", mount.source),
                    fmt::format("add \"volumes: {{{}: {{}}}}\" at the end of the file; a file "
                                "begins with ./",
                                mount.source));
            service.mounts.push_back(std::move(mount));
        }
        return {};
    }

    static Result<void> read_long_mount(const YamlValue& item, AppService::Mount& mount) {
        HR_TRY(const auto fields, item.fields({"type", "source", "target", "read_only"}));
        const auto* type = fields.find("type");
        const auto* source = fields.find("source");
        const auto* target = fields.find("target");
        if (type == nullptr || source == nullptr || target == nullptr)
            return item.fail("A volume needs type, source and target");
        HR_TRY(const auto word, type->text());
        if (word != "volume" && word != "bind")
            return type->fail(fmt::format("'{}' is neither volume nor bind", word));
        mount.is_file = word == "bind";
        HR_TRY(mount.source, source->text());
        HR_TRY(mount.target, target->text());
        if (const auto* read_only = fields.find("read_only")) {
            HR_TRY(mount.read_only, read_only->flag());
        }
        return {};
    }

    /// Resolves and hashes a file beside the compose file; one that is named twice travels once.
    /// @param from where it lies; empty: where its name says
    Result<void> add_file(const YamlValue& item, const std::string& name,
                          const std::string& from = {}) {
        const auto is_same = [&](const auto& file) {
            return file.entry.name == name;
        };
        if (std::any_of(result_.files.begin(), result_.files.end(), is_same))
            return {};
        const auto at_item = [&](Error error) {
            return item.locate(std::move(error));
        };
        HR_TRY(const auto path,
               canonical_path(from.empty() ? join_path(folder_, name) : from).map_error(at_item));
        struct stat status {};
        if (::stat(path.c_str(), &status) != 0 || !S_ISREG(status.st_mode))
            return item.fail(fmt::format("{} is not a regular file", path),
                             "only single files are handed to the guest");
        const auto size = static_cast<std::uint64_t>(status.st_size);
        if (size > max_files_bytes - files_bytes_)
            return item.fail(fmt::format("With {} all files have more than {}", path,
                                         format_size(max_files_bytes)),
                             "fetch large files from inside the guest");
        files_bytes_ += size;
        HR_TRY(const auto digest, crypto::sha256_file(path).map_error(at_item));
        const protocol::AppFile entry{name, crypto::to_hex(digest), size};
        result_.files.push_back({path, entry});
        result_.app.files.push_back(entry);
        return {};
    }

    Result<void> check_dependencies() const {
        for (const auto& dependency : dependencies_) {
            const auto& services = result_.app.services;
            const auto found =
                std::find_if(services.begin(), services.end(), [&](const auto& service) {
                    return service.name == dependency.value.service;
                });
            if (found == services.end())
                return dependency.place.fail(
                    fmt::format("There is no service '{}' to depend on", dependency.value.service));
            if (dependency.value.condition == DependencyCondition::healthy && !found->health_check)
                return dependency.place.fail(
                    fmt::format("Service '{}' has no health check, so it never becomes healthy",
                                found->name),
                    "add a healthcheck to it, or wait for service_started");
        }
        return {};
    }

    std::string folder_;
    const std::map<std::string, std::string>& environment_;
    ResolvedCompose result_;
    std::vector<Dependency> dependencies_;
    std::uint64_t files_bytes_ = 0;
};

} // namespace

Result<Compose> parse_compose(const std::string& path, std::string text) {
    if (text.size() > max_compose_bytes)
        return fail(ErrorCode::corrupt_data, fmt::format("{} has {} bytes, more than {}", path,
                                                         text.size(), max_compose_bytes));
    if (!protocol::is_plain_text(text))
        return fail(ErrorCode::invalid_argument,
                    fmt::format("{}: The file is not UTF-8 text", path), "save it as UTF-8");
    Compose compose;
    compose.path = path;
    compose.text = std::move(text);
    compose.name = name_from(path);
    HR_TRY(const auto root, parse_yaml(path, compose.text));
    HR_TRY(const auto entries, root.entries());
    bool has_services = false;
    for (const auto& entry : entries) {
        if (entry.key == "name") {
            HR_TRY(compose.name, entry.value.raw_text());
        }
        if (entry.key != "services")
            continue;
        has_services = true;
        HR_TRY(const auto services, entry.value.entries());
        for (const auto& service : services) {
            std::string image;
            HR_TRY(const auto kind, kind_of(service.value, folder_of(path), image));
            if (kind == Kind::container && !compose.has_container_images) {
                compose.has_container_images = true;
                compose.first_container_image = image;
            }
        }
    }
    if (!has_services)
        return root.fail("The file has no services", "services: {NAME: {command: [PROGRAM]}}");
    return compose;
}

Result<Compose> load_compose(const std::string& path) {
    // One byte more than allowed is enough to tell.
    HR_TRY(auto text, read_file(path, max_compose_bytes));
    return parse_compose(path, std::move(text));
}

Result<ResolvedCompose> resolve_compose(const Compose& compose,
                                        const std::map<std::string, std::string>& environment) {
    HR_TRY(const auto root, parse_yaml(compose.path, compose.text));
    return Resolver(compose, environment).resolve(root);
}

} // namespace host_runner::spec

// SPDX-License-Identifier: Apache-2.0
#include "host_runner/agent/prepare_services.hpp"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <utility>

#include <unistd.h>

#include <fmt/format.h>

#include "host_runner/agent/network.hpp"
#include "host_runner/agent/users.hpp"
#include "host_runner/base/files.hpp"
#include "host_runner/base/process.hpp"
#include "host_runner/base/units.hpp"

namespace host_runner::agent {

namespace {

constexpr std::size_t max_text_file_bytes = mib;

UserAccount ourselves() {
    return {{::geteuid(), ::getegid(), {}}, "/"};
}

/// A folder that belongs to `owner` if it is made here; an existing one stays as it is.
Result<void> make_volume(const std::string& path, const ProcessSpec::User& owner) {
    if (path_exists(path))
        return {};
    HR_CHECK(make_directories(path, 0755));
    if (::chown(path.c_str(), owner.uid, owner.gid) != 0)
        return fail_errno(fmt::format("Cannot give {} to user {}", path, owner.uid), errno);
    return {};
}

/// Where the checked copy of a delivered file is.
std::string delivered_file(const protocol::AppCompose& app, const GuestPaths& paths,
                           const std::string& name) {
    const auto file = std::find_if(app.files.begin(), app.files.end(),
                                   [&](const auto& entry) { return entry.name == name; });
    HR_ASSERT(file != app.files.end()); // decode_app_compose() checks it
    return join_path(paths.state, "share/files/" + file->sha256);
}

Result<LaunchRequest::Module> prepare_module(const protocol::AppService& service,
                                             const protocol::AppCompose& app,
                                             const GuestPaths& paths, bool has_data_disk) {
    LaunchRequest::Module module;
    module.path = delivered_file(app, paths, service.module->file);
    module.sha256 = base_name(module.path);
    module.cache_folder = join_path(has_data_disk ? paths.data : paths.state, "modules");
    module.root_folder = join_path(paths.state, "worker-root");
    module.worker.world = service.module->world;
    for (const auto port : service.ports)
        module.worker.ports.push_back({.number = port});
    module.worker.shares_ports = service.replicas > 1;
    module.worker.memory_bytes = service.module->memory_bytes;
    module.worker.timeout = service.module->timeout;
    module.worker.calls = service.module->calls;
    for (const auto& authority : service.module->outgoing) {
        HR_TRY(auto address, locate_authority(hosts_of(app), authority));
        module.worker.outgoing.push_back({authority, std::move(address)});
    }
    // Some of the time in which it must have ended is for ending.
    constexpr std::chrono::milliseconds ending{1000};
    module.worker.grace =
        std::max(service.stop_grace_period - ending, service.stop_grace_period / 2);
    if (const auto& tls = service.module->tls) {
        module.tls.emplace();
        module.tls->name = service.name;
        if (tls->certificate_file.empty()) {
            // Where the disk keeps it, clients can remember it.
            module.tls->store = join_path(has_data_disk ? paths.data : paths.state,
                                          fmt::format("tls/{}.pem", service.name));
        } else {
            module.tls->certificate_path = delivered_file(app, paths, tls->certificate_file);
            module.tls->key_path = delivered_file(app, paths, tls->key_file);
        }
    }
    return module;
}

Result<std::vector<LaunchRequest::BindMount>>
prepare_mounts(const protocol::AppService& service, const ProcessSpec::User& user,
               const protocol::AppCompose& app, const GuestPaths& paths, bool has_data_disk) {
    std::vector<LaunchRequest::BindMount> mounts;
    for (const auto& mount : service.mounts) {
        std::string source;
        if (mount.is_file) {
            source = delivered_file(app, paths, mount.source);
        } else {
            if (!has_data_disk)
                return fail(ErrorCode::wrong_state,
                            fmt::format("It needs the volume {}, but this VM has no usable data "
                                        "disk",
                                        mount.source),
                            "run it without the volume, or with --tee none");
            source = join_path(paths.data, "volumes/" + mount.source);
            HR_CHECK(make_volume(source, user));
        }
        // Delivered files are part of what was hashed: nobody changes them.
        mounts.push_back({source, mount.target, mount.read_only || mount.is_file, mount.is_file});
    }
    return mounts;
}

} // namespace

std::string hosts_of(const protocol::AppCompose& app) {
    std::vector<std::string> services;
    for (const auto& service : app.services)
        services.push_back(service.name);
    return hosts_file(app.name, services);
}

std::vector<std::string> functions_of(const protocol::AppCompose& app) {
    std::vector<std::string> names;
    for (const auto& service : app.services)
        if (service.module && service.module->world == protocol::World::function)
            names.push_back(service.name);
    return names;
}

Result<std::vector<PreparedService>> prepare_services(const protocol::AppCompose& app,
                                                      const GuestPaths& paths, bool has_data_disk,
                                                      Users users) {
    HR_TRY(const auto boot_id, current_boot_id());
    std::string passwd;
    std::string group;
    if (users == Users::of_the_image) {
        HR_TRY(passwd, read_file(paths.passwd, max_text_file_bytes));
        HR_TRY(group, read_file(paths.group, max_text_file_bytes));
    }
    std::vector<PreparedService> result;
    for (const auto& service : app.services) {
        const auto in_service = [&service](Error error) {
            error.message = fmt::format("Service {}: {}", service.name, error.message);
            return error;
        };
        UserAccount account = ourselves();
        if (users == Users::of_the_image) {
            HR_TRY(account, resolve_user(passwd, group, service.user).map_error(in_service));
        }
        PreparedService prepared;
        prepared.service = service;
        prepared.launch.command = service.command;
        auto environment = service.environment;
        if (service.module) {
            if (service.user.empty() && users == Users::of_the_image)
                account.ids = worker_user(service.name);
            HR_TRY(prepared.launch.module,
                   prepare_module(service, app, paths, has_data_disk).map_error(in_service));
            // What a program of the image could read for itself.
            environment.emplace("HOST_RUNNER_BOOT_ID", boot_id);
            environment.emplace("HOST_RUNNER_PROGRAM_SHA256", prepared.launch.module->sha256);
        } else {
            prepared.launch.working_directory =
                service.working_directory.empty() ? "/" : service.working_directory;
            environment.emplace("PATH", service_path);
            environment.emplace("HOME", account.home);
        }
        if (users == Users::of_the_image)
            prepared.launch.user = account.ids;
        for (const auto& [name, value] : environment)
            prepared.environment.push_back(fmt::format("{}={}", name, value));
        HR_TRY(
            prepared.launch.mounts,
            prepare_mounts(service, account.ids, app, paths, has_data_disk).map_error(in_service));
        result.push_back(std::move(prepared));
    }
    return result;
}

} // namespace host_runner::agent

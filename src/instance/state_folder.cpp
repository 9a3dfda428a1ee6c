// SPDX-License-Identifier: Apache-2.0
#include "state_folder.hpp"

#include <cerrno>

#include <unistd.h>

#include <fmt/format.h>

#include "host_runner/base/files.hpp"
#include "host_runner/host/device_binder.hpp"

namespace host_runner::instance {

namespace {

Result<std::vector<std::string>> names_of(const Registry& registry) {
    auto names = list_directory(registry.instances_directory());
    if (!names && names.error().code == ErrorCode::not_found)
        return std::vector<std::string>{};
    return names;
}

} // namespace

Result<std::vector<std::string>> instance_ids(const Registry& registry) {
    HR_TRY(auto names, names_of(registry));
    std::erase_if(names, [](const auto& name) { return !is_instance_id(name); });
    return names;
}

Result<Record> read_record(const InstancePaths& paths) {
    HR_TRY(const auto text, read_file(paths.record(), max_record_bytes));
    return decode_record(text).map_error([&](Error error) {
        error.message = fmt::format("{}: {}", paths.record(), error.message);
        error.hint = "if the VM's disk is not needed any more, remove the folder by hand";
        return error;
    });
}

Result<void> remove_held(const Registry& registry, const std::string& id) {
    const InstancePaths paths = registry.paths(id);
    if (!path_exists(paths.record()))
        return fail(ErrorCode::wrong_state,
                    fmt::format("Not removing {}: it has no {}", paths.directory, instance_marker));
    const std::string grave =
        join_path(registry.instances_directory(), std::string(removing_prefix) + id);
    if (::rename(paths.directory.c_str(), grave.c_str()) != 0)
        return fail_errno(fmt::format("Cannot rename {} to {}", paths.directory, grave), errno);
    return remove_tree(grave, std::string(instance_marker));
}

bool holds_devices(const InstancePaths& paths) {
    const auto journal = host::read_device_journal(paths.device_journal());
    return !journal || journal->has_value();
}

Result<void> remove_stopped(const Registry& registry, const std::string& id) {
    const InstancePaths paths = registry.paths(id);
    if (!path_exists(paths.directory))
        return fail(ErrorCode::not_found, fmt::format("Instance {} is not there any more", id));
    HR_TRY(const auto lock, try_lock_file(paths.lock()).map_error([&](Error error) {
        if (error.code != ErrorCode::already_exists)
            return error;
        return Error{ErrorCode::wrong_state, fmt::format("Instance {} runs", id),
                     fmt::format("stop it first: host_runner stop --id {}", id), 0};
    }));
    if (holds_devices(paths))
        return fail(ErrorCode::wrong_state,
                    fmt::format("Instance {} has not given its devices back", id),
                    "host_runner gpu reclaim gives them back");
    return remove_held(registry, id);
}

Result<void> remove_leftovers(const Registry& registry) {
    HR_TRY(const auto names, names_of(registry));
    for (const auto& name : names) {
        if (!name.starts_with(staging_prefix) && !name.starts_with(removing_prefix))
            continue;
        const std::string path = join_path(registry.instances_directory(), name);
        // One that never got its marker, or has lost it last, is empty.
        if (::rmdir(path.c_str()) != 0)
            HR_CHECK(remove_tree(path, std::string(instance_marker)));
    }
    return {};
}

} // namespace host_runner::instance

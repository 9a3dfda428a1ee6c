// SPDX-License-Identifier: Apache-2.0
#include "host_runner/instance/held_devices.hpp"

#include <fmt/format.h>

#include "host_runner/base/files.hpp"
#include "state_folder.hpp"

namespace host_runner::instance {

namespace {

/// Empty for a temporary instance, and where the record cannot be read.
std::string name_of(const InstancePaths& paths) {
    const auto record = read_record(paths);
    return record ? record->name : std::string();
}

} // namespace

std::string HeldDevices::label() const {
    return name.empty() ? id : fmt::format("{} ({})", name, id);
}

Result<std::vector<HeldDevices>>
find_held_devices(const Registry& registry, const host::HostRoot& root,
                  const std::function<void(const Error&)>& on_problem) {
    HR_TRY(const auto ids, instance_ids(registry));
    std::vector<HeldDevices> all;
    for (const auto& id : ids) {
        const auto paths = registry.paths(id);
        if (!path_exists(paths.device_journal()))
            continue;
        HR_TRY(const bool is_alive, is_file_locked(paths.lock()));
        if (is_alive)
            continue;
        const auto journal = host::read_device_journal(paths.device_journal(), root);
        if (!journal && on_problem)
            on_problem(journal.error());
        if (!journal || !*journal)
            continue;
        HeldDevices held{id, name_of(paths), {}};
        for (const auto& entry : (*journal)->entries)
            held.devices.push_back(entry.address);
        all.push_back(std::move(held));
    }
    return all;
}

Result<void> reclaim_devices(const Registry& registry, host::SysfsWriter& kernel,
                             const host::HostRoot& root,
                             const std::function<void(const ReclaimedDevice&)>& on_device,
                             const std::function<void(const Error&)>& on_problem) {
    HR_TRY(const auto ids, instance_ids(registry));
    for (const auto& id : ids) {
        const auto paths = registry.paths(id);
        if (!path_exists(paths.device_journal()))
            continue;
        const auto lock = try_lock_file(paths.lock());
        if (!lock) {
            if (lock.error().code != ErrorCode::already_exists) // else it runs, or is reclaimed
                on_problem(lock.error());
            continue;
        }
        const auto name = name_of(paths);
        host::DeviceBinder binder(kernel, paths.device_journal(), root);
        auto returned = binder.give_back();
        if (!returned) {
            on_problem(returned.error());
            continue;
        }
        for (auto& device : *returned)
            on_device({id, name, std::move(device)});
    }
    return {};
}

} // namespace host_runner::instance

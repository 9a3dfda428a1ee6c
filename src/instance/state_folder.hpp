// SPDX-License-Identifier: Apache-2.0
#pragma once

/// What registry and claims share about the layout of the state folder.

#include <string>
#include <string_view>
#include <vector>

#include "host_runner/base/error.hpp"
#include "host_runner/instance/record.hpp"
#include "host_runner/instance/registry.hpp"

namespace host_runner::instance {

/// The record; a folder that has it is ours.
inline constexpr std::string_view instance_marker = "instance.json";
/// Folders of these names are not listed: one is not yet, the other no longer an instance.
inline constexpr std::string_view staging_prefix = ".new-";
inline constexpr std::string_view removing_prefix = ".removing-";

/// Names in the folder of instances that are ids; none when there is no such folder.
[[nodiscard]] Result<std::vector<std::string>> instance_ids(const Registry& registry);

/// @errors not_found; corrupt_data: names the file
[[nodiscard]] Result<Record> read_record(const InstancePaths& paths);

/// Removes an instance whose lock the caller holds, and claims.lock too. Others see all of it or
/// nothing. @errors wrong_state: the folder has no marker
[[nodiscard]] Result<void> remove_held(const Registry& registry, const std::string& id);

/// Whether the folder's journal has devices that were not given back, or cannot be read: with the
/// folder would go the knowledge of where they belong.
[[nodiscard]] bool holds_devices(const InstancePaths& paths);

/// Takes the lock and removes; claims.lock must be held.
/// @errors wrong_state: it runs, or holds devices; not_found
[[nodiscard]] Result<void> remove_stopped(const Registry& registry, const std::string& id);

/// Removes what interrupted claims and removals left; claims.lock must be held.
[[nodiscard]] Result<void> remove_leftovers(const Registry& registry);

} // namespace host_runner::instance

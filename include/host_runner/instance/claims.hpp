// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Makes sure that no two runs of one state folder have the same name, folder, port, CID or GPU.
///
///     HR_TRY(auto claims, Claims::begin(registry));   // one at a time, across processes
///     HR_TRY(auto claim, claims.open(spec.name));     // a new id, or the folder of that name
///     ...settle host ports, asking claims.port_owner() about each...
///     HR_CHECK(claims.publish(claim, record));        // now the others see it
///
/// A folder appears with its record and its lock held, or not at all: a kill -9 at any point
/// leaves at most a hidden leftover that the next begin() removes. Ports and CIDs of other state
/// folders are not known here; binding them for real tells.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "host_runner/base/error.hpp"
#include "host_runner/base/unique_fd.hpp"
#include "host_runner/instance/record.hpp"
#include "host_runner/instance/registry.hpp"
#include "host_runner/spec/pci_address.hpp"
#include "host_runner/spec/port_mapping.hpp"

namespace host_runner::instance {

/// The right to one instance's folder, for as long as `lock` is open.
struct Claim {
    std::string id;
    UniqueFd lock; ///< Of a new instance: only from publish() on.
    /// The record of the last run of a named instance that is being continued.
    std::optional<Record> previous;
};

/// Holds the state folder's claims.lock until destroyed: keep it for milliseconds only.
class Claims {
public:
    /// Makes the state folder (0700) when missing, waits for the lock, reads the records of live
    /// instances and removes what interrupted claims and removals left.
    /// @errors timeout: another command holds the lock for more than 10 s
    [[nodiscard]] static Result<Claims> begin(const Registry& registry);

    /// A new id (nothing is made yet), or the locked folder of the instance with this name.
    /// @errors already_exists: an instance of this name runs
    [[nodiscard]] Result<Claim> open(const std::string& name);

    /// Who has this port: "id" or "name (id)"; nullopt: no live instance but `except_id`.
    [[nodiscard]] std::optional<std::string> port_owner(const spec::PortMapping& mapping,
                                                        const std::string& except_id = {}) const;

    /// Who has this GPU or NVSwitch: "id" or "name (id)"; nullopt: no live instance but
    /// `except_id`.
    [[nodiscard]] std::optional<std::string> gpu_owner(const spec::PciAddress& address,
                                                       const std::string& except_id = {}) const;

    /// Checks the record's ports, CID and GPUs against all live instances, then writes it; a new
    /// instance gets its folder and lock. `record.id` must be the claim's. Also for an instance
    /// that changes its ports while it runs.
    /// @errors already_exists: names the port, CID or GPU and who has it; invalid_argument: two
    /// ports of
    ///         the record itself conflict
    [[nodiscard]] Result<void> publish(Claim& claim, const Record& record);

    /// Undoes publish() for an instance that never started: a new one's folder goes, a continued
    /// one gets its last record back.
    [[nodiscard]] Result<void> withdraw(Claim claim);

private:
    Claims(const Registry& registry, UniqueFd lock) : registry_(registry), lock_(std::move(lock)) {}
    Registry registry_;
    UniqueFd lock_;
    std::vector<Record> live_;
};

} // namespace host_runner::instance

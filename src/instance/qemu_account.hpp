// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Who QEMU runs as, and what it then is given open.

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "host_runner/base/unique_fd.hpp"
#include "host_runner/host/account.hpp"
#include "host_runner/host/host_root.hpp"
#include "host_runner/qemu/launch_plan.hpp"
#include "host_runner/spec/vm_spec.hpp"

namespace host_runner::instance {

/// Root's QEMUs run as this account where it exists. The Debian package makes it.
inline constexpr std::string_view default_qemu_account = "host-runner";

/// @param asked as --user; empty: not asked for
/// @return nullopt: as the runner itself. The account's groups are those that QEMU needs for
/// /dev/kvm and the socket of the quote service.
/// @errors permission_denied: only root can choose; not_found: no such account
[[nodiscard]] Result<std::optional<host::Account>>
choose_qemu_account(const std::string& asked, bool uses_kvm,
                    const std::optional<spec::QgsAddress>& qgs, const host::HostRoot& root = {});

/// Whether the account may execute QEMU and read the image's files. Folders on the way to these are
/// no matter: QEMU gets them open. @errors permission_denied, with the file
[[nodiscard]] Result<void> check_account_can_run(const host::Account& account,
                                                 const std::string& qemu_program,
                                                 const std::vector<std::string>& image_files);

/// Opens all that `plan` names for one start of QEMU and says so in `plan.handed`. What QEMU must
/// open by name, the folders for hugepages and 9p, become the account's.
/// @return number in QEMU -> ours, from `first_number` on
/// @errors of the first that cannot be opened, made or given away
[[nodiscard]] Result<std::map<int, UniqueFd>> open_handed_files(qemu::LaunchPlan& plan,
                                                                const host::Account& account,
                                                                int first_number,
                                                                const host::HostRoot& root = {});

} // namespace host_runner::instance

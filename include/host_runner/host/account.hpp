// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The account that QEMU runs as when root starts it.
///
///     HR_TRY(const auto account, find_account("host-runner"));
///     HR_TRY(const auto as, ScopedAccount::enter(account));
///     HR_CHECK(check_opens("/dev/kvm"));      // what the kernel answers host-runner

#include <optional>
#include <string>
#include <vector>

#include <sys/types.h>

#include "host_runner/base/error.hpp"
#include "host_runner/host/host_root.hpp"

namespace host_runner::host {

struct Account {
    std::string name;
    uid_t uid = 0;
    gid_t gid = 0;
    /// What a program that runs as the account is given, and nothing else: not those that the
    /// account is in.
    std::vector<gid_t> groups = {};
    bool operator==(const Account&) const = default;
};

/// Of the system's accounts (getpwnam(3)), without supplementary groups. @param name or a number
/// @errors not_found; io_error: the accounts cannot be read
[[nodiscard]] Result<Account> find_account(const std::string& name);

/// The same, but of /etc/passwd alone: the name service's modules cost time and memory.
/// @return nullopt: it is not there
[[nodiscard]] Result<std::optional<Account>> find_local_account(const std::string& name,
                                                                const HostRoot& root = {});

/// As long as it lives, the kernel treats what this thread does with files and unix sockets like
/// something that the account does (setfsuid(2); root's rights over files are off). All else, and
/// all other threads, stay root's. Thread-safe.
class ScopedAccount {
public:
    /// @errors permission_denied: only root can
    [[nodiscard]] static Result<ScopedAccount> enter(const Account& account);
    ScopedAccount(ScopedAccount&& other) noexcept;
    ScopedAccount& operator=(ScopedAccount&&) = delete;
    ScopedAccount(const ScopedAccount&) = delete;
    ScopedAccount& operator=(const ScopedAccount&) = delete;
    ~ScopedAccount(); ///< On the same thread.

private:
    explicit ScopedAccount(std::vector<gid_t> groups) noexcept;
    std::vector<gid_t> groups_before_;
    bool is_entered_ = true;
};

} // namespace host_runner::host

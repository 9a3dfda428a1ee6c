// SPDX-License-Identifier: Apache-2.0
#include "host_runner/host/account.hpp"

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <utility>

#include <pwd.h>
#include <sys/fsuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <fmt/format.h>

#include "host_runner/base/delete_by.hpp"
#include "parse.hpp"

namespace host_runner::host {

namespace {

/// glibc's setgroups() changes all threads of the process (nptl(7)); the kernel's call one.
Result<void> set_thread_groups(const std::vector<gid_t>& groups) {
    if (::syscall(SYS_setgroups, groups.size(), groups.data()) != 0)
        return fail_errno("Cannot set this thread's groups", errno, "only root can");
    return {};
}

Result<std::vector<gid_t>> current_groups() {
    const int count = ::getgroups(0, nullptr);
    std::vector<gid_t> groups(count > 0 ? static_cast<std::size_t>(count) : 0);
    if (count < 0 || ::getgroups(count, groups.data()) != count)
        return fail_errno("Cannot read this process's groups", errno);
    return groups;
}

} // namespace

Result<Account> find_account(const std::string& name) {
    std::array<char, 16384> buffer{};
    passwd entry{};
    passwd* found = nullptr;
    const auto number = parse_number<uid_t>(name, 10);
    const int problem =
        number ? ::getpwuid_r(*number, &entry, buffer.data(), buffer.size(), &found)
               : ::getpwnam_r(name.c_str(), &entry, buffer.data(), buffer.size(), &found);
    if (problem != 0)
        return fail_errno(fmt::format("Cannot look for the account {}", name), problem);
    if (found == nullptr)
        return fail(ErrorCode::not_found, fmt::format("This system has no account {}", name),
                    "make one (useradd --system --shell /usr/sbin/nologin NAME), or name another");
    return Account{entry.pw_name, entry.pw_uid, entry.pw_gid};
}

Result<std::optional<Account>> find_local_account(const std::string& name, const HostRoot& root) {
    const auto path = root.path("/etc/passwd");
    const std::unique_ptr<std::FILE, DeleteBy<std::fclose>> file(std::fopen(path.c_str(), "re"));
    if (!file && errno == ENOENT)
        return std::nullopt;
    if (!file)
        return fail_errno(fmt::format("Cannot open {}", path), errno);
    std::array<char, 16384> buffer{};
    passwd entry{};
    passwd* found = nullptr;
    while (::fgetpwent_r(file.get(), &entry, buffer.data(), buffer.size(), &found) == 0)
        if (name == entry.pw_name)
            return Account{entry.pw_name, entry.pw_uid, entry.pw_gid};
    return std::nullopt;
}

Result<ScopedAccount> ScopedAccount::enter(const Account& account) {
    HR_TRY(auto before, current_groups());
    HR_CHECK(set_thread_groups(account.groups));
    ScopedAccount scope(std::move(before)); // from here on its end undoes all
    ::setfsgid(account.gid);
    ::setfsuid(account.uid);
    // They report no error, but what is in force: setfsuid(2).
    if (static_cast<gid_t>(::setfsgid(account.gid)) != account.gid ||
        static_cast<uid_t>(::setfsuid(account.uid)) != account.uid)
        return fail(ErrorCode::permission_denied,
                    fmt::format("Cannot act as the account {}", account.name), "only root can");
    return scope;
}

ScopedAccount::ScopedAccount(std::vector<gid_t> groups) noexcept
    : groups_before_(std::move(groups)) {}

ScopedAccount::ScopedAccount(ScopedAccount&& other) noexcept
    : groups_before_(std::move(other.groups_before_)),
      is_entered_(std::exchange(other.is_entered_, false)) {}

ScopedAccount::~ScopedAccount() {
    if (!is_entered_)
        return;
    ::setfsuid(::geteuid());
    ::setfsgid(::getegid());
    // A thread that goes on with the wrong groups would be worse than none.
    if (!set_thread_groups(groups_before_))
        std::abort();
}

} // namespace host_runner::host

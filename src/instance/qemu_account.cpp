// SPDX-License-Identifier: Apache-2.0
#include "qemu_account.hpp"

#include <array>
#include <cerrno>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include "host_runner/base/files.hpp"
#include "host_runner/base/unix_socket.hpp"
#include "host_runner/instance/registry.hpp"
#include "host_runner/protocol/channel.hpp"

namespace host_runner::instance {

namespace {

constexpr std::string_view kvm_device = "/dev/kvm";

/// The group without which the account could not write to `path`; nullopt where it does not matter.
std::optional<gid_t> group_for(const std::string& path, const host::Account& account) {
    struct stat status {};
    if (::stat(path.c_str(), &status) != 0 || (status.st_mode & S_IWOTH) != 0 ||
        (status.st_mode & S_IWGRP) == 0 || status.st_gid == account.gid || status.st_gid == 0)
        return std::nullopt;
    return status.st_gid;
}

class HandedFiles {
public:
    HandedFiles(qemu::LaunchPlan& plan, int first_number) : plan_(plan), next_(first_number) {
        plan_.handed.clear();
    }

    Result<void> open(const std::string& path, int flags) {
        HR_TRY(const int number, take(path, flags));
        plan_.handed[path].fd = number;
        return {};
    }

    /// For writing, and for reading.
    Result<void> open_disk(const std::string& path) {
        HR_CHECK(open(path, O_RDWR));
        HR_TRY(const int number, take(path, O_RDONLY));
        plan_.handed[path].read_only_fd = number;
        return {};
    }

    Result<void> listen(const std::string& path) {
        HR_TRY(auto listener, listen_unix(path));
        plan_.handed[path].fd = next_;
        files_.emplace(next_++, std::move(listener));
        return {};
    }

    std::map<int, UniqueFd> release() {
        return std::move(files_);
    }

private:
    Result<int> take(const std::string& path, int flags) {
        UniqueFd file(::open(path.c_str(), flags | O_CLOEXEC | O_NOCTTY, 0600));
        if (!file)
            return fail_errno(fmt::format("Cannot open {} for QEMU", path), errno);
        files_.emplace(next_, std::move(file));
        return next_++;
    }

    qemu::LaunchPlan& plan_;
    int next_;
    std::map<int, UniqueFd> files_;
};

Result<void> give_to(const host::Account& account, const std::string& path) {
    if (::lchown(path.c_str(), account.uid, account.gid) != 0)
        return fail_errno(fmt::format("Cannot give {} to {}", path, account.name), errno);
    return {};
}

Result<void> give_tree_to(const host::Account& account, const std::string& folder) {
    HR_CHECK(give_to(account, folder));
    std::error_code problem;
    for (std::filesystem::recursive_directory_iterator entry(folder, problem), end;
         !problem && entry != end; entry.increment(problem))
        HR_CHECK(give_to(account, entry->path().string()));
    if (problem)
        return fail_errno(fmt::format("Cannot read {}", folder), problem.value());
    return {};
}

} // namespace

Result<std::optional<host::Account>> choose_qemu_account(const std::string& asked, bool uses_kvm,
                                                         const std::optional<spec::QgsAddress>& qgs,
                                                         const host::HostRoot& root) {
    const bool is_root = ::geteuid() == 0;
    std::optional<host::Account> account;
    if (!asked.empty()) {
        HR_TRY(account, host::find_account(asked));
    } else if (is_root) {
        HR_TRY(account, host::find_local_account(std::string(default_qemu_account), root));
    }
    if (!account)
        return std::nullopt;
    if (account->uid == ::geteuid())
        return std::nullopt;
    if (!is_root)
        return fail(
            ErrorCode::permission_denied,
            fmt::format("--user {}: only root can run QEMU as another account", account->name),
            "run as root, or leave --user out");
    std::vector<std::string> paths;
    if (uses_kvm)
        paths.push_back(root.path(kvm_device));
    if (qgs && !qgs->unix_path.empty())
        paths.push_back(root.path(qgs->unix_path));
    for (const auto& path : paths)
        if (const auto group = group_for(path, *account))
            account->groups.push_back(*group);
    return account;
}

Result<void> check_account_can_run(const host::Account& account, const std::string& qemu_program,
                                   const std::vector<std::string>& image_files) {
    std::vector<std::pair<std::string, UniqueFd>> files;
    for (const auto& path : image_files) {
        UniqueFd file(::open(path.c_str(), O_PATH | O_CLOEXEC));
        if (!file)
            return fail_errno(fmt::format("Cannot open {}", path), errno);
        files.emplace_back(path, std::move(file));
    }
    HR_TRY(const auto as_account, host::ScopedAccount::enter(account));
    if (::faccessat(AT_FDCWD, qemu_program.c_str(), X_OK, AT_EACCESS) != 0)
        return fail_errno(
            fmt::format("The account {} cannot execute {}", account.name, qemu_program), errno,
            "put QEMU where every account may execute it, or use --user root");
    for (const auto& [path, file] : files) {
        const UniqueFd opened(
            ::open(fmt::format("/proc/self/fd/{}", file.get()).c_str(), O_RDONLY | O_CLOEXEC));
        if (!opened)
            return fail_errno(fmt::format("The account {}, as which QEMU runs, cannot read {}",
                                          account.name, path),
                              errno, fmt::format("chmod o+r {}, or use --user root", path));
    }
    return {};
}

Result<std::map<int, UniqueFd>> open_handed_files(qemu::LaunchPlan& plan,
                                                  const host::Account& account, int first_number,
                                                  const host::HostRoot& root) {
    const InstancePaths paths(plan.directory);
    HandedFiles files(plan, first_number);
    HR_CHECK(files.listen(paths.qmp_socket()));
    HR_CHECK(files.listen(paths.console_socket()));
    if (plan.channel == qemu::ChannelMode::virtio_serial)
        for (const auto& port : protocol::channel_ports)
            HR_CHECK(files.listen(paths.channel_socket(port.number)));
    HR_CHECK(files.open(paths.serial_log(), O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW));
    for (const auto& path :
         {plan.kernel, plan.initrd, plan.firmware.value_or(""), plan.rootfs.value_or("")})
        if (!path.empty())
            HR_CHECK(files.open(path, O_RDONLY));
    HR_CHECK(files.open_disk(plan.data_disk));
    switch (plan.share) {
    case qemu::ShareMode::none:
        break;
    case qemu::ShareMode::disk:
        HR_CHECK(plan.share_read_only ? files.open(plan.share_path, O_RDONLY)
                                      : files.open_disk(plan.share_path));
        break;
    case qemu::ShareMode::plan9:
        HR_CHECK(give_tree_to(account, plan.share_path));
        HR_CHECK(files.open(plan.share_path, O_RDONLY | O_DIRECTORY));
        break;
    }
    if (!plan.gpus.empty())
        HR_CHECK(files.open(root.path(qemu::iommufd_file), O_RDWR));
    for (const auto& gpu : plan.gpus)
        HR_CHECK(files.open(gpu.vfio_file, O_RDWR));
    if (!plan.hugepage_path.empty())
        HR_CHECK(give_to(account, plan.hugepage_path));
    return files.release();
}

} // namespace host_runner::instance

// SPDX-License-Identifier: Apache-2.0
#include "host_runner/agent/service_launch.hpp"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>

#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "host_runner/base/files.hpp"
#include "host_runner/base/unique_fd.hpp"
#include "host_runner/crypto/digest.hpp"

namespace host_runner::agent {

namespace {

Result<void> join_cgroup(const std::string& folder) {
    const auto path = join_path(folder, "cgroup.procs");
    const UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
    if (!fd || ::write(fd.get(), "0", 1) != 1) // 0 is the writer itself
        return fail_errno(fmt::format("Cannot join the cgroup {}", folder), errno);
    return {};
}

Result<void> make_target(const LaunchRequest::BindMount& mount) {
    if (path_exists(mount.target))
        return {};
    const auto add_hint = [&mount](Error error) {
        error.hint = fmt::format("mount on a path whose parents can be made in the image, not {}",
                                 mount.target);
        return error;
    };
    HR_CHECK(make_directories(mount.is_file ? parent_path(mount.target) : mount.target, 0755)
                 .map_error(add_hint));
    if (!mount.is_file)
        return {};
    const UniqueFd fd(::open(mount.target.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0444));
    if (!fd)
        return fail_errno(fmt::format("Cannot create {}", mount.target), errno);
    return {};
}

Result<void> mount_all(const std::vector<LaunchRequest::BindMount>& mounts) {
    if (mounts.empty())
        return {};
    if (::unshare(CLONE_NEWNS) != 0 ||
        ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
        return fail_errno("Cannot make a mount namespace", errno);
    // All sources are opened first: a target may hide the source of a later one.
    std::vector<UniqueFd> sources;
    for (const auto& mount : mounts) {
        sources.emplace_back(::open(mount.source.c_str(), O_PATH | O_CLOEXEC));
        if (!sources.back())
            return fail_errno(fmt::format("Cannot open {}", mount.source), errno);
    }
    for (std::size_t i = 0; i < mounts.size(); ++i) {
        const auto& mount = mounts[i];
        HR_CHECK(make_target(mount));
        const auto source = fmt::format("/proc/self/fd/{}", sources[i].get());
        const unsigned long flags =
            (mount.read_only ? MS_BIND | MS_REMOUNT | MS_RDONLY : MS_BIND | MS_REMOUNT) |
            MS_NOSUID | MS_NODEV;
        // The flags of a bind mount only count in a remount.
        if (::mount(source.c_str(), mount.target.c_str(), nullptr, MS_BIND, nullptr) != 0 ||
            ::mount("none", mount.target.c_str(), nullptr, flags, nullptr) != 0)
            return fail_errno(fmt::format("Cannot mount {} on {}", mount.source, mount.target),
                              errno);
    }
    return {};
}

Result<void> take_terminal(const std::string& path) {
    const UniqueFd fd(::open(path.c_str(), O_RDWR | O_CLOEXEC));
    if (!fd)
        return fail_errno(fmt::format("Cannot open the terminal {}", path), errno);
    if (::ioctl(fd.get(), TIOCSCTTY, 1) != 0)
        return fail_errno(fmt::format("Cannot control the terminal {}", path), errno);
    for (const int standard : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO})
        if (::dup2(fd.get(), standard) < 0)
            return fail_errno(fmt::format("Cannot use the terminal {}", path), errno);
    return {};
}

Result<std::string> find_program(const std::string& name) {
    if (name.find('/') != std::string::npos) {
        if (::access(name.c_str(), X_OK) != 0)
            return fail_errno(fmt::format("Cannot execute {}", name), errno);
        return name;
    }
    const char* path = std::getenv("PATH"); // NOLINT(concurrency-mt-unsafe): one thread
    std::string_view rest = path != nullptr ? path : "";
    while (!rest.empty()) {
        const auto colon = std::min(rest.find(':'), rest.size());
        auto candidate = join_path(rest.substr(0, colon), name);
        if (colon > 0 && ::access(candidate.c_str(), X_OK) == 0)
            return candidate;
        rest.remove_prefix(std::min(colon + 1, rest.size()));
    }
    return fail(ErrorCode::not_found, fmt::format("The image has no program {}", name),
                fmt::format("PATH is {}", path != nullptr ? path : "not set"));
}

Result<void> become(const ProcessSpec::User& user) {
    if (::setgroups(user.groups.size(), user.groups.data()) != 0 ||
        ::setresgid(user.gid, user.gid, user.gid) != 0 ||
        ::setresuid(user.uid, user.uid, user.uid) != 0)
        return fail_errno(fmt::format("Cannot become user {}:{}", user.uid, user.gid), errno);
    // Changing ids cleared it; the agent is the parent.
    if (::prctl(PR_SET_PDEATHSIG, SIGKILL) != 0)
        return fail_errno("Cannot set the parent-death signal", errno);
    return {};
}

/// Returns only with an error.
Result<void> run(const LaunchRequest& request) {
    if (!request.cgroup.empty())
        HR_CHECK(join_cgroup(request.cgroup));
    HR_CHECK(mount_all(request.mounts));
    if (!request.terminal.empty())
        HR_CHECK(take_terminal(request.terminal));
    if (!request.working_directory.empty() && ::chdir(request.working_directory.c_str()) != 0)
        return fail_errno(
            fmt::format("Cannot enter the working directory {}", request.working_directory), errno);
    HR_TRY(const auto program, find_program(request.command.front()));
    if (request.report_fd >= 0) {
        // Before the change of user, who may be allowed to execute the file but not to read it.
        HR_TRY(const auto digest, crypto::sha256_file(program));
        HR_CHECK(write_all(request.report_fd, fmt::format("sha256 {}\n", crypto::to_hex(digest))));
    }
    if (request.user)
        HR_CHECK(become(*request.user));
    if (request.report_fd >= 0 && ::fcntl(request.report_fd, F_SETFD, FD_CLOEXEC) != 0)
        return fail_errno("Cannot prepare the report", errno);
    std::vector<char*> argv;
    for (const auto& argument : request.command)
        argv.push_back(const_cast<char*>(argument.c_str())); // NOLINT: exec's historic type
    argv.push_back(nullptr);
    ::execv(program.c_str(), argv.data());
    return fail_errno(fmt::format("Cannot execute {}", program), errno);
}

} // namespace

std::string encode_launch_request(const LaunchRequest& request) {
    nlohmann::ordered_json json{{"command", request.command},
                                {"cgroup", request.cgroup},
                                {"working_directory", request.working_directory},
                                {"terminal", request.terminal},
                                {"report_fd", request.report_fd},
                                {"mounts", nlohmann::ordered_json::array()}};
    if (request.user)
        json["user"] = {{"uid", request.user->uid},
                        {"gid", request.user->gid},
                        {"groups", request.user->groups}};
    for (const auto& mount : request.mounts)
        json["mounts"].push_back({{"source", mount.source},
                                  {"target", mount.target},
                                  {"read_only", mount.read_only},
                                  {"is_file", mount.is_file}});
    return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

Result<LaunchRequest> decode_launch_request(std::string_view text) {
    try {
        const auto json = nlohmann::json::parse(text);
        LaunchRequest request;
        json.at("command").get_to(request.command);
        json.at("cgroup").get_to(request.cgroup);
        json.at("working_directory").get_to(request.working_directory);
        json.at("terminal").get_to(request.terminal);
        json.at("report_fd").get_to(request.report_fd);
        if (const auto user = json.find("user"); user != json.end())
            request.user =
                ProcessSpec::User{user->at("uid").get<uid_t>(), user->at("gid").get<gid_t>(),
                                  user->at("groups").get<std::vector<gid_t>>()};
        for (const auto& mount : json.at("mounts"))
            request.mounts.push_back(
                {mount.at("source").get<std::string>(), mount.at("target").get<std::string>(),
                 mount.at("read_only").get<bool>(), mount.at("is_file").get<bool>()});
        if (request.command.empty())
            return fail(ErrorCode::invalid_argument, "The launch request names no program");
        return request;
    } catch (const nlohmann::json::exception& problem) {
        return fail(ErrorCode::invalid_argument,
                    fmt::format("The launch request is not one: {}", problem.what()));
    }
}

int launch_service(const LaunchRequest& request) {
    const auto error = run(request).error();
    const auto text = error.describe();
    // The pipe or stderr may be gone; then the exit code alone must do.
    if (request.report_fd >= 0)
        static_cast<void>(write_all(request.report_fd, fmt::format("error {}\n", text)));
    else
        static_cast<void>(write_all(STDERR_FILENO, fmt::format("guest_agent: {}\n", text)));
    return error.code == ErrorCode::not_found ? 127 : 126;
}

LaunchReport parse_launch_report(std::string_view text) {
    LaunchReport report;
    while (!text.empty()) {
        const auto end = std::min(text.find('\n'), text.size());
        const auto line = text.substr(0, end);
        if (line.starts_with("sha256 "))
            report.program_sha256 = line.substr(7);
        else if (line.starts_with("error "))
            report.error = line.substr(6);
        text.remove_prefix(std::min(end + 1, text.size()));
    }
    return report;
}

} // namespace host_runner::agent

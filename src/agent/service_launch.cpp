// SPDX-License-Identifier: Apache-2.0
#include "host_runner/agent/service_launch.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <utility>

#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "host_runner/agent/users.hpp"
#include "host_runner/base/files.hpp"
#include "host_runner/base/unique_fd.hpp"
#include "host_runner/base/units.hpp"
#include "host_runner/crypto/certificate.hpp"
#include "host_runner/crypto/digest.hpp"
#include "host_runner/wasm/compile_cache.hpp"
#include "host_runner/wasm/engine.hpp"
#include "host_runner/wasm/worker/request.hpp"

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

/// A mount of `mount.source` that is nowhere yet. Source: open_tree(2), mount_setattr(2)
Result<UniqueFd> detached_mount(const LaunchRequest::BindMount& mount) {
    UniqueFd tree(::open_tree(AT_FDCWD, mount.source.c_str(), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC));
    if (!tree)
        return fail_errno(fmt::format("Cannot mount {}", mount.source), errno);
    mount_attr attributes{};
    attributes.attr_set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV;
    if (mount.read_only)
        attributes.attr_set |= MOUNT_ATTR_RDONLY;
    if (::mount_setattr(tree.get(), "", AT_EMPTY_PATH, &attributes, sizeof attributes) != 0)
        return fail_errno(fmt::format("Cannot restrict the mount of {}", mount.source), errno);
    return tree;
}

/// Makes an empty file system on `folder` this process's root, and nothing else visible.
Result<void> enter_empty_root(const std::string& folder) {
    // Room for mount targets only.
    if (::mount("none", folder.c_str(), "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC,
                "mode=0755,size=1m") != 0)
        return fail_errno(fmt::format("Cannot mount a root on {}", folder), errno);
    // The new root over the old one, which is then detached; see pivot_root(2).
    if (::chdir(folder.c_str()) != 0 || ::syscall(SYS_pivot_root, ".", ".") != 0 ||
        ::umount2(".", MNT_DETACH) != 0 || ::chdir("/") != 0)
        return fail_errno(fmt::format("Cannot make {} the root", folder), errno);
    return {};
}

/// An ordinary user may mount only where it has a user namespace too. It stays the same user there.
/// Source: user_namespaces(7)
Result<void> enter_user_namespace() {
    const auto uid = ::geteuid();
    const auto gid = ::getegid();
    if (::unshare(CLONE_NEWUSER) != 0)
        return fail_errno("Cannot make a user namespace", errno);
    for (const auto& [name, text] : {std::pair("setgroups", std::string("deny")),
                                     std::pair("uid_map", fmt::format("{0} {0} 1", uid)),
                                     std::pair("gid_map", fmt::format("{0} {0} 1", gid))}) {
        const auto path = fmt::format("/proc/self/{}", name);
        const UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
        if (!fd || ::write(fd.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()))
            return fail_errno(fmt::format("Cannot write {}", path), errno);
    }
    return {};
}

/// Mounts from here on are seen by this process only.
Result<void> enter_mount_namespace() {
    const auto enter = []() -> Result<void> {
        if (::geteuid() != 0)
            HR_CHECK(enter_user_namespace());
        if (::unshare(CLONE_NEWNS) != 0 ||
            ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
            return fail_errno("Cannot make a mount namespace", errno);
        return {};
    };
    return enter().map_error([](Error error) {
        error.hint = "a service with volumes needs the right to mount: be root, or allow user "
                     "namespaces here, see user_namespaces(7)";
        return error;
    });
}

/// @param root_folder empty: the mounts are put into the root that is there
Result<void> mount_all(const std::vector<LaunchRequest::BindMount>& mounts,
                       const std::string& root_folder) {
    if (mounts.empty() && root_folder.empty())
        return {};
    HR_CHECK(enter_mount_namespace());
    // All sources are opened first: a target, or the new root, may hide the source of a later one.
    std::vector<UniqueFd> sources;
    for (const auto& mount : mounts) {
        HR_TRY(auto source, detached_mount(mount));
        sources.push_back(std::move(source));
    }
    if (!root_folder.empty())
        HR_CHECK(enter_empty_root(root_folder));
    for (std::size_t i = 0; i < mounts.size(); ++i) {
        const auto& target = mounts[i].target;
        HR_CHECK(make_target(mounts[i]));
        if (::move_mount(sources[i].get(), "", AT_FDCWD, target.c_str(), MOVE_MOUNT_F_EMPTY_PATH) !=
            0)
            return fail_errno(fmt::format("Cannot mount {} on {}", mounts[i].source, target),
                              errno);
    }
    mount_attr read_only{};
    read_only.attr_set = MOUNT_ATTR_RDONLY;
    if (!root_folder.empty() &&
        ::mount_setattr(AT_FDCWD, "/", 0, &read_only, sizeof read_only) != 0)
        return fail_errno("Cannot make the root read-only", errno);
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
    return fail(ErrorCode::not_found, fmt::format("There is no program {}", name),
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

Result<void> report_hash(const LaunchRequest& request, std::string_view sha256) {
    if (request.report_fd < 0)
        return {};
    return write_all(request.report_fd, fmt::format("sha256 {}\n", sha256));
}

Result<void> set_inherited(int fd, bool inherited) {
    if (fd >= 0 && ::fcntl(fd, F_SETFD, inherited ? 0 : FD_CLOEXEC) != 0)
        return fail_errno(fmt::format("Cannot prepare descriptor {}", fd), errno);
    return {};
}

std::vector<char*> to_argv(const std::vector<std::string>& arguments) {
    std::vector<char*> argv;
    for (const auto& argument : arguments)
        argv.push_back(const_cast<char*>(argument.c_str())); // NOLINT: exec's historic type
    argv.push_back(nullptr);
    return argv;
}

/// What both kinds of service go through, up to their root folder.
Result<void> settle(const LaunchRequest& request, const std::string& root_folder) {
    if (!request.cgroup.empty())
        HR_CHECK(join_cgroup(request.cgroup));
    HR_CHECK(mount_all(request.mounts, root_folder));
    if (!request.terminal.empty())
        HR_CHECK(take_terminal(request.terminal));
    return {};
}

/// Returns only with an error.
Result<void> run_program(const LaunchRequest& request) {
    HR_CHECK(settle(request, ""));
    if (!request.working_directory.empty() && ::chdir(request.working_directory.c_str()) != 0)
        return fail_errno(
            fmt::format("Cannot enter the working directory {}", request.working_directory), errno);
    HR_TRY(const auto program, find_program(request.command.front()));
    // Before the change of user, who may be allowed to execute the file but not to read it.
    HR_TRY(const auto digest, crypto::sha256_file(program));
    if (request.user)
        HR_CHECK(become(*request.user));
    HR_CHECK(report_hash(request, crypto::to_hex(digest)));
    // The exec ends the report.
    HR_CHECK(set_inherited(request.report_fd, false));
    ::execv(program.c_str(), to_argv(request.command).data());
    return fail_errno(fmt::format("Cannot execute {}", program), errno);
}

/// A file in memory with these bytes, at its start, that nobody can change.
Result<UniqueFd> sealed_file(const char* name, std::string_view bytes) {
    UniqueFd file(::memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
    if (!file)
        return fail_errno("Cannot make a file in memory", errno);
    HR_CHECK(write_all(file.get(), bytes));
    if (::fcntl(file.get(), F_ADD_SEALS,
                F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0 ||
        ::lseek(file.get(), 0, SEEK_SET) != 0)
        return fail_errno("Cannot seal a file in memory", errno);
    return file;
}

struct CompiledModule {
    UniqueFd artifact; ///< A file with the native code.
    bool is_component = false;
};

Result<CompiledModule> compile_module(const LaunchRequest& request) {
    const auto& module = *request.module;
    wasm::CompileLimits limits;
    // It shall not be able to touch what belongs to any service, nor be touched by one.
    if (request.user)
        limits.user = ProcessSpec::User{compiler_uid, compiler_uid, {}};
    HR_TRY(const auto bytes, read_file(module.path, limits.module_bytes));
    // The bytes that are compiled are those that were checked.
    if (const auto found = crypto::sha256_hex(bytes); found != module.sha256)
        return fail(ErrorCode::corrupt_data,
                    fmt::format("The module {} has the SHA-256 {}, but the manifest names {}",
                                module.path, found, module.sha256));
    ForkExecLauncher launcher;
    wasm::CompileCache cache(launcher, {"/proc/self/exe", "compile"}, module.cache_folder, limits);
    HR_TRY(const auto artifact, cache.artifact(bytes));
    HR_TRY(auto file, sealed_file("artifact", artifact));
    return CompiledModule{std::move(file), wasm::is_component(bytes)};
}

/// PEM of certificate and key, one after the other.
Result<std::string> certificate_with_key(const LaunchRequest::Module::Tls& tls) {
    constexpr std::size_t max_pem_bytes = 256 * kib;
    if (!tls.certificate_path.empty()) {
        HR_TRY(const auto certificate, read_file(tls.certificate_path, max_pem_bytes));
        HR_TRY(const auto key, read_file(tls.key_path, max_pem_bytes));
        return certificate + '\n' + key;
    }
    HR_CHECK(make_directories(parent_path(tls.store), 0700));
    // Replicas of a service have one certificate: the first makes it, others wait meanwhile.
    const auto lock_path = tls.store + ".lock";
    const UniqueFd lock(::open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    if (!lock || ::flock(lock.get(), LOCK_EX) != 0)
        return fail_errno(fmt::format("Cannot lock {}", lock_path), errno);
    auto kept = read_file(tls.store, max_pem_bytes);
    if (kept || kept.error().code != ErrorCode::not_found)
        return kept;
    constexpr std::chrono::hours ten_years{24 * 3652};
    const std::array names{tls.name, std::string("localhost")};
    HR_TRY(const auto made, crypto::make_self_signed_certificate(names, ten_years));
    HR_CHECK(write_file_atomic(tls.store, made.certificate_pem + made.private_key_pem, 0600));
    return made.certificate_pem + made.private_key_pem;
}

/// The descriptor of the PEM for the worker; its fingerprint goes to the agent.
Result<UniqueFd> prepare_tls(const LaunchRequest& request) {
    if (!request.module->tls)
        return UniqueFd();
    HR_TRY(const auto pem, certificate_with_key(*request.module->tls));
    HR_TRY(const auto fingerprint, crypto::certificate_fingerprint(pem));
    if (request.report_fd >= 0)
        HR_CHECK(write_all(request.report_fd, fmt::format("certificate {}\n", fingerprint)));
    return sealed_file("tls", pem);
}

/// Returns only with an error.
Result<void> run_module(const LaunchRequest& request) {
    const auto& module = *request.module;
    // Outside the service's cgroup, whose limits are for the service.
    HR_TRY(const auto compiled, compile_module(request));
    HR_TRY(const auto tls, prepare_tls(request));
    // The new root has no file to execute.
    const UniqueFd program(::open("/proc/self/exe", O_PATH | O_CLOEXEC));
    if (!program)
        return fail_errno("Cannot open the agent's program", errno);
    if (!module.root_folder.empty())
        HR_CHECK(make_directories(module.root_folder, 0755));
    HR_CHECK(settle(request, module.root_folder));
    if (request.user)
        HR_CHECK(become(*request.user));
    HR_CHECK(report_hash(request, module.sha256));

    auto worker = module.worker;
    worker.arguments = request.command;
    worker.artifact_fd = compiled.artifact.get();
    worker.is_component = compiled.is_component;
    worker.report_fd = request.report_fd;
    worker.tls_fd = tls.get();
    worker.has_files = !request.mounts.empty();
    const std::vector<std::string> command{"guest_agent", "worker",
                                           wasm::worker::encode_request(worker)};
    HR_CHECK(set_inherited(compiled.artifact.get(), true));
    HR_CHECK(set_inherited(tls.get(), true));
    ::syscall(SYS_execveat, program.get(), "", to_argv(command).data(), environ, AT_EMPTY_PATH);
    return fail_errno("Cannot execute the worker", errno);
}

/// Returns only with an error.
Result<void> run(const LaunchRequest& request) {
    return request.module ? run_module(request) : run_program(request);
}

/// Throws nlohmann::json::exception.
Result<LaunchRequest::Module> decode_module(const nlohmann::json& json) {
    LaunchRequest::Module module;
    json.at("path").get_to(module.path);
    json.at("sha256").get_to(module.sha256);
    json.at("cache_folder").get_to(module.cache_folder);
    json.at("root_folder").get_to(module.root_folder);
    HR_TRY(module.worker, wasm::worker::decode_request(json.at("worker").get<std::string>()));
    if (const auto tls = json.find("tls"); tls != json.end())
        module.tls = LaunchRequest::Module::Tls{
            tls->at("certificate_path").get<std::string>(), tls->at("key_path").get<std::string>(),
            tls->at("store").get<std::string>(), tls->at("name").get<std::string>()};
    return module;
}

} // namespace

std::string encode_launch_request(const LaunchRequest& request) {
    nlohmann::ordered_json json{{"command", request.command},
                                {"cgroup", request.cgroup},
                                {"working_directory", request.working_directory},
                                {"terminal", request.terminal},
                                {"report_fd", request.report_fd},
                                {"mounts", nlohmann::ordered_json::array()}};
    if (const auto& module = request.module)
        json["module"] = {{"path", module->path},
                          {"sha256", module->sha256},
                          {"cache_folder", module->cache_folder},
                          {"root_folder", module->root_folder},
                          {"worker", wasm::worker::encode_request(module->worker)}};
    if (request.module && request.module->tls)
        json["module"]["tls"] = {{"certificate_path", request.module->tls->certificate_path},
                                 {"key_path", request.module->tls->key_path},
                                 {"store", request.module->tls->store},
                                 {"name", request.module->tls->name}};
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
        if (const auto module = json.find("module"); module != json.end()) {
            HR_TRY(request.module, decode_module(*module));
        }
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
        else if (line.starts_with("certificate "))
            report.certificate_sha256 = line.substr(12);
        else if (line.starts_with("error "))
            report.error = line.substr(6);
        text.remove_prefix(std::min(end + 1, text.size()));
    }
    return report;
}

} // namespace host_runner::agent

// SPDX-License-Identifier: Apache-2.0
#include "host_runner/usernet/network_process.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <csignal>
#include <utility>

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <fmt/format.h>

#include "host_runner/base/files.hpp"

namespace host_runner::usernet {

namespace {

/// What a program may say before it is ready.
constexpr std::size_t max_status_bytes = 4096;
/// "nobody": the program owns nothing, and nothing that it could want belongs to that user.
constexpr uid_t unprivileged_user = 65534;

struct Pair {
    UniqueFd ours;
    UniqueFd theirs;
};

Result<Pair> make_socket_pair() {
    std::array<int, 2> fds{};
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds.data()) != 0)
        return fail_errno("Cannot make a pair of sockets", errno);
    return Pair{UniqueFd(fds[0]), UniqueFd(fds[1])};
}

Result<Pair> make_pipe() {
    std::array<int, 2> fds{};
    if (::pipe2(fds.data(), O_CLOEXEC) != 0)
        return fail_errno("Cannot make a pipe", errno);
    return Pair{UniqueFd(fds[0]), UniqueFd(fds[1])};
}

} // namespace

std::string find_user_network() {
    const auto program = canonical_path("/proc/self/exe");
    if (!program)
        return {};
    const auto path = parent_path(parent_path(*program)) + "/lib/host-runner/user_network";
    return ::access(path.c_str(), X_OK) == 0 ? path : std::string();
}

NetworkCommand user_network_command(const std::string& path, const Settings& settings) {
    auto with_user = settings;
    if (::geteuid() == 0 && !with_user.user)
        with_user.user = unprivileged_user;
    NetworkCommand command{{path}, [](std::string_view text, bool ended) -> std::optional<Status> {
                               if (!ended && text.find('\n') == std::string_view::npos)
                                   return std::nullopt;
                               return parse_status(text);
                           }};
    for (auto& word : to_arguments(with_user))
        command.argv.push_back(std::move(word));
    return command;
}

Result<NetworkProcess> NetworkProcess::start(ProcessLauncher& launcher,
                                             const NetworkCommand& command) {
    HR_TRY(auto frames, make_socket_pair());
    HR_TRY(auto output, make_pipe());
    ProcessSpec spec;
    spec.argv = command.argv;
    // It parses what a guest sends: nothing of ours that it does not need.
    spec.environment.emplace();
    spec.working_directory = "/";
    spec.stdout_fd = spec.stderr_fd = output.theirs.get();
    spec.pass_fds[frames_fd] = frames.theirs.get();
    NetworkProcess process;
    process.name_ = base_name(command.argv.front());
    process.parse_ = command.read_status;
    HR_TRY(process.child_, launcher.launch(spec));
    process.for_qemu_ = std::move(frames.ours);
    process.output_ = std::move(output.ours);
    return process;
}

NetworkProcess::~NetworkProcess() {
    if (!child_.pidfd)
        return;
    ::syscall(SYS_pidfd_send_signal, child_.pidfd.get(), SIGKILL, nullptr, 0);
    static_cast<void>(host_runner::reap(child_));
}

Result<ExitStatus> NetworkProcess::reap() {
    auto status = host_runner::reap(child_);
    child_.pidfd.reset();
    return status;
}

bool NetworkProcess::drain_output() const {
    std::array<char, max_status_bytes> buffer{};
    const auto count = ::read(output_.get(), buffer.data(), buffer.size());
    return count > 0 || (count < 0 && errno == EINTR);
}

Result<Status> NetworkProcess::read_status(std::chrono::milliseconds timeout) {
    const auto deadline = std::chrono::steady_clock::now() + timeout;
    for (std::string text;;) {
        const bool ended = text.size() > max_status_bytes;
        if (auto status = parse_(text, ended))
            return std::move(*status);
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(
            deadline - std::chrono::steady_clock::now());
        pollfd waiting{output_.get(), POLLIN, 0};
        const int ready = ::poll(
            &waiting, 1, static_cast<int>(std::clamp<std::int64_t>(left.count(), 0, INT_MAX)));
        if (ready < 0 && errno != EINTR)
            return fail_errno(fmt::format("Cannot wait for {}", name_), errno);
        if (ready == 0)
            return fail(ErrorCode::timeout,
                        fmt::format("{} is not ready after {} ms", name_, timeout.count()));
        std::array<char, max_status_bytes> buffer{};
        const auto count = ready > 0 ? ::read(output_.get(), buffer.data(), buffer.size()) : -1;
        if (count == 0)
            return parse_(text, true).value_or(Status{});
        if (count > 0)
            text.append(buffer.data(), static_cast<std::size_t>(count));
        else if (errno != EINTR)
            return fail_errno(fmt::format("Cannot read from {}", name_), errno);
    }
}

Result<UniqueFd> NetworkProcess::wait_ready(std::chrono::milliseconds timeout) {
    HR_TRY(const auto status, read_status(timeout));
    switch (status.kind) {
    case Status::Kind::ready:
        return std::move(for_qemu_);
    case Status::Kind::port_taken:
        return fail(
            ErrorCode::already_exists,
            fmt::format("Host port {} was taken by somebody else in the last moment", status.text),
            "choose another host port, or 0 for a free one");
    case Status::Kind::failed:
        break;
    }
    return fail(ErrorCode::unsupported,
                fmt::format("The VM's network cannot be made: {}: {}", name_, status.text),
                "use --net none, or --net user=qemu without --host-service");
}

} // namespace host_runner::usernet

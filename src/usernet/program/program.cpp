// SPDX-License-Identifier: Apache-2.0
#include "host_runner/usernet/program/program.hpp"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <vector>

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <fmt/format.h>

#include "host_runner/base/files.hpp"
#include "host_runner/usernet/program/confine.hpp"
#include "host_runner/usernet/program/destinations.hpp"
#include "host_runner/usernet/program/frame_stream.hpp"
#include "host_runner/usernet/program/socket_guard.hpp"
#include "host_runner/usernet/program/stack.hpp"
#include "host_runner/usernet/settings.hpp"

namespace host_runner::usernet::program {

namespace {

/// Frames of one read: as many as fit, so that a busy guest costs few system calls.
constexpr std::size_t read_bytes = 256UL * 1024;
/// Of the socket to QEMU: several of libslirp's windows.
constexpr int socket_buffer_bytes = 1 << 20;
constexpr std::size_t max_resolv_conf_bytes = 64UL * 1024;

void say(const Status& status) {
    static_cast<void>(write_all(STDOUT_FILENO, format_status(status)));
}

/// The runner reads one line, and what libraries print later is nobody's.
void close_outputs() {
    for (const int fd : {STDOUT_FILENO, STDERR_FILENO})
        ::dup2(STDIN_FILENO, fd); // the runner gives /dev/null
}

std::vector<Endpoint> read_nameservers() {
    return nameservers_of(read_file("/etc/resolv.conf", max_resolv_conf_bytes).value_or(""));
}

Result<void> prepare_socket() {
    const int flags = ::fcntl(frames_fd, F_GETFL);
    if (flags < 0 || ::fcntl(frames_fd, F_SETFL, flags | O_NONBLOCK) != 0)
        return fail_errno(fmt::format("Descriptor {} is no socket to a VM", frames_fd), errno);
    for (const int option : {SO_SNDBUF, SO_RCVBUF}) // as much as this user may have
        ::setsockopt(frames_fd, SOL_SOCKET, option, &socket_buffer_bytes,
                     sizeof socket_buffer_bytes);
    return {};
}

enum class Stream { open, ended, lost };

/// One read, all of its frames to the guest's network.
Stream receive(FrameReader& reader, Stack& stack, std::vector<char>& buffer) {
    const auto count = ::read(frames_fd, buffer.data(), buffer.size());
    if (count < 0)
        return errno == EAGAIN || errno == EINTR ? Stream::open : Stream::ended;
    if (count == 0)
        return Stream::ended;
    return reader.feed({buffer.data(), static_cast<std::size_t>(count)},
                       [&](std::string_view frame) { stack.input(frame); })
               ? Stream::open
               : Stream::lost;
}

Stream send(FrameQueue& queue) {
    while (!queue.empty()) {
        const auto bytes = queue.front();
        const auto count = ::write(frames_fd, bytes.data(), bytes.size());
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return errno == EAGAIN ? Stream::open : Stream::ended;
        queue.pop(static_cast<std::size_t>(count));
    }
    return Stream::open;
}

Stream carry_frames(Stack& stack, FrameQueue& queue) {
    FrameReader reader;
    std::vector<char> buffer(read_bytes);
    std::vector<pollfd> descriptors;
    auto state = Stream::open;
    while (state == Stream::open) {
        descriptors.assign(
            1, {frames_fd, static_cast<short>(queue.empty() ? POLLIN : POLLIN | POLLOUT), 0});
        const auto wait = stack.prepare(descriptors);
        const int ready =
            ::poll(descriptors.data(), descriptors.size(), static_cast<int>(wait.count()));
        if (ready < 0 && errno == EINTR)
            continue;
        // First, because it tells libslirp the time: with that of the last round, which may be long
        // ago, a UDP conversation that the frames below begin would have expired at once.
        stack.handle(descriptors, ready < 0);
        const auto seen = descriptors.front().revents;
        if ((seen & (POLLIN | POLLHUP | POLLERR)) != 0)
            state = receive(reader, stack, buffer);
        if (state == Stream::open)
            state = send(queue);
    }
    return state;
}

/// All that can fail. @return exit code
Result<int> run(const std::vector<std::string>& words) {
    HR_TRY(const auto settings, parse_arguments(words));
    HR_CHECK(prepare_socket());
    Destinations destinations(settings,
                              settings.egress ? read_nameservers() : std::vector<Endpoint>());
    HR_CHECK(guard_sockets(destinations));
    FrameQueue queue;
    HR_TRY(const auto stack, Stack::create(settings, queue));
    if (settings.user)
        HR_CHECK(become_user(*settings.user));
    HR_CHECK(confine(settings.egress ? Files::resolver : Files::none));
    say({Status::Kind::ready, {}});
    close_outputs();
    const auto end = carry_frames(*stack, queue);
    return end == Stream::ended ? 0 : 1;
}

} // namespace

int run_program(const std::vector<std::string>& words) {
    ::signal(SIGPIPE, SIG_IGN); // NOLINT(cert-err33-c): cannot fail
    const auto code = run(words);
    if (code)
        return *code;
    const auto& error = code.error();
    if (error.code == ErrorCode::already_exists)
        say({Status::Kind::port_taken, error.message});
    else
        say({Status::Kind::failed, error.describe()});
    return 1;
}

} // namespace host_runner::usernet::program

// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <cerrno>
#include <optional>

#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <fmt/format.h>

#include "host_runner/base/files.hpp"
#include "host_runner/net/http_client.hpp"
#include "terminal.hpp"
#include "verbs.hpp"

namespace host_runner::cli {

namespace {

constexpr char detach_key = 0x1d; // Ctrl-]

/// Signals as input, so that the terminal gets its modes back before we end.
Result<UniqueFd> watch_end_signals() {
    sigset_t signals;
    ::sigemptyset(&signals);
    for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGQUIT})
        ::sigaddset(&signals, signal);
    if (const int problem = ::pthread_sigmask(SIG_BLOCK, &signals, nullptr); problem != 0)
        return fail_errno("Cannot block signals", problem);
    UniqueFd fd(::signalfd(-1, &signals, SFD_CLOEXEC));
    if (!fd)
        return fail_errno("Cannot watch signals", errno);
    return fd;
}

/// What has come; empty: the end. @errors io_error
Result<std::string> read_some(int fd) {
    std::array<char, 4096> buffer{};
    for (;;) {
        const auto count = ::read(fd, buffer.data(), buffer.size());
        if (count >= 0)
            return std::string(buffer.data(), static_cast<std::size_t>(count));
        if (errno == EIO || errno == ECONNRESET)
            return std::string(); // the terminal or QEMU is gone
        if (errno != EINTR && errno != EAGAIN)
            return fail_errno("Cannot read", errno);
    }
}

/// Carries bytes both ways until the user detaches, a signal comes or QEMU closes.
/// @return true when QEMU closed
Result<bool> carry(int socket, int signals) {
    bool reads_input = true;
    for (;;) {
        std::array<pollfd, 3> waiting{{{socket, POLLIN, 0},
                                       {signals, POLLIN, 0},
                                       {reads_input ? STDIN_FILENO : -1, POLLIN, 0}}};
        if (::poll(waiting.data(), waiting.size(), -1) < 0) {
            if (errno == EINTR)
                continue;
            return fail_errno("Cannot wait for input", errno);
        }
        if (waiting[0].revents != 0) {
            HR_TRY(const auto bytes, read_some(socket));
            if (bytes.empty())
                return true;
            HR_CHECK(print_out(bytes));
        }
        if (waiting[1].revents != 0)
            return false;
        if (waiting[2].revents != 0) {
            HR_TRY(const auto bytes, read_some(STDIN_FILENO));
            const auto key = bytes.find(detach_key);
            HR_CHECK(write_all(socket, std::string_view(bytes).substr(0, key)));
            if (key != std::string::npos)
                return false;
            // A pipe's end is no wish to leave: its answer is still to come.
            reads_input = !bytes.empty();
        }
    }
}

} // namespace

VerbResult run_verb_console(const Context& context) {
    HR_TRY(const auto registry, open_registry());
    HR_TRY(const auto one, find_running(registry, context.argument(0)));
    const auto path = registry.paths(one.record.id).console_socket();
    // QEMU serves one client; a second one would hang unseen.
    const auto lock = try_lock_file(path + ".lock");
    if (!lock && lock.error().code == ErrorCode::already_exists)
        return fail(ErrorCode::already_exists,
                    fmt::format("Another console is connected to {}", label(one.record)),
                    "leave that one with Ctrl-]");
    if (!lock)
        return tl::unexpected<Error>(lock.error());
    HR_TRY(const auto socket, net::connect_unix(path)());
    HR_TRY(const auto signals, watch_end_signals());
    Result<bool> closed = false;
    {
        std::optional<RawTerminal> raw;
        if (::isatty(STDIN_FILENO) == 1) {
            print_err(fmt::format("Connected to {}; Ctrl-] leaves\n", label(one.record)));
            HR_TRY(auto entered, RawTerminal::enter(STDIN_FILENO));
            raw.emplace(std::move(entered));
        }
        closed = carry(socket.get(), signals.get());
    }
    HR_CHECK(closed);
    print_err(*closed ? "\nThe VM has closed its serial line\n" : "\nDetached; the VM goes on\n");
    return to_int(ExitCode::success);
}

} // namespace host_runner::cli

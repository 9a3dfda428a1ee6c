// SPDX-License-Identifier: Apache-2.0
#include "host_runner/wasm/worker/worker.hpp"

#include <cerrno>
#include <csignal>
#include <string>
#include <utility>
#include <vector>

#include <poll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <fmt/format.h>

#include "host_runner/base/files.hpp"
#include "worlds.hpp"

namespace host_runner::wasm::worker {

namespace {

constexpr std::size_t max_artifact_bytes = std::size_t{512} << 20U;
constexpr std::size_t max_pem_bytes = std::size_t{1} << 20U;

Result<void> limit_process() {
    const rlimit no_core{0, 0};
    // A core dump or a debugger of the same user would show the module's secrets.
    if (::setrlimit(RLIMIT_CORE, &no_core) != 0 || ::prctl(PR_SET_DUMPABLE, 0) != 0)
        return fail_errno("Cannot keep others out of the worker's memory", errno);
    // A filter of system calls is only taken from those that cannot gain rights.
    if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return fail_errno("Cannot give up new privileges", errno);
    return {};
}

/// Readable once SIGTERM or SIGINT has come. Before any thread is started, which inherits the mask.
Result<UniqueFd> catch_stop_signals() {
    sigset_t signals;
    ::sigemptyset(&signals);
    ::sigaddset(&signals, SIGTERM);
    ::sigaddset(&signals, SIGINT);
    ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
    ::signal(SIGPIPE, SIG_IGN); // NOLINT: its answer is the old handler
    UniqueFd fd(::signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
    if (!fd)
        return fail_errno("Cannot watch for signals", errno);
    return fd;
}

/// Our own, which is the module's.
std::vector<std::pair<std::string, std::string>> take_environment() {
    std::vector<std::pair<std::string, std::string>> environment;
    for (char** entry = environ; *entry != nullptr; ++entry) { // NOLINT: C's array
        const std::string_view text(*entry);
        const auto equals = text.find('=');
        if (equals != std::string_view::npos)
            environment.emplace_back(text.substr(0, equals), text.substr(equals + 1));
    }
    return environment;
}

/// @param fd -1: nothing
Result<std::string> read_and_close(int fd, std::size_t max_bytes) {
    if (fd < 0)
        return std::string();
    const UniqueFd file(fd);
    return read_all(file.get(), max_bytes);
}

Result<int> run(const Request& request, UniqueFd& report) {
    HR_CHECK(limit_process());
    HR_TRY(const auto stop, catch_stop_signals());
    HR_TRY(const auto counters,
           request.counters_fd < 0
               ? Counters::create(request.world)
               : Counters::attach(request.world, UniqueFd(request.counters_fd)));
    Start start{.request = request, .report = report, .counters = counters};
    HR_TRY(start.artifact, read_and_close(request.artifact_fd, max_artifact_bytes));
    HR_TRY(start.pem, read_and_close(request.tls_fd, max_pem_bytes));
    start.environment = take_environment();
    start.stop_fd = stop.get();
    switch (request.world) {
    case protocol::World::command:
        return run_command(start);
    case protocol::World::wasi_http:
        return run_http(start);
    case protocol::World::function:
        return run_function(start);
    }
    return fail(ErrorCode::invalid_argument, "The worker's request names no world");
}

} // namespace

wasi::FileEntry listen_entry(const Request& request, const Port& port, wasi::Protocol protocol) {
    return {.kind = wasi::FileKind::listen,
            .name = fmt::format("{}", port.number),
            .protocol = protocol,
            .address = port.address,
            .port = port.listen_port == 0 ? port.number : port.listen_port,
            .shared = request.shares_ports};
}

// The log's pipe does not block, because the module shares it.
void say(std::string_view line) {
    auto text = fmt::format("guest_agent: {}\n", line);
    std::string_view rest = text;
    while (!rest.empty()) {
        const ssize_t count = ::write(STDERR_FILENO, rest.data(), rest.size());
        if (count >= 0) {
            rest.remove_prefix(static_cast<std::size_t>(count));
            continue;
        }
        constexpr int patience_ms = 1000;
        pollfd writable{STDERR_FILENO, POLLOUT, 0};
        if (errno != EINTR && (errno != EAGAIN || ::poll(&writable, 1, patience_ms) <= 0))
            return; // nobody reads
    }
}

Result<void> Start::begin(const ConfineOptions& options) {
    HR_CHECK(confine(options));
    report.reset();
    return {};
}

int worker_main(std::string_view text) {
    UniqueFd report;
    const auto request = decode_request(text);
    if (request && request->report_fd >= 0)
        report.reset(request->report_fd);
    const auto code = request ? run(*request, report) : tl::unexpected(request.error());
    if (code)
        return *code;
    if (report)
        static_cast<void>(
            write_all(report.get(), fmt::format("error {}\n", code.error().describe())));
    else
        say(code.error().describe());
    return static_cast<int>(WorkerExit::not_runnable);
}

} // namespace host_runner::wasm::worker

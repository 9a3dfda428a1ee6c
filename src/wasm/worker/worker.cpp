// SPDX-License-Identifier: Apache-2.0
#include "host_runner/wasm/worker/worker.hpp"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "host_runner/base/files.hpp"
#include "host_runner/wasm/engine.hpp"
#include "host_runner/wasm/wasi/context.hpp"
#include "host_runner/wasm/wasi/preview1.hpp"
#include "host_runner/wasm/wasi/sockets.hpp"
#include "host_runner/wasm/worker/confine.hpp"
#include "host_runner/wasm/worker/request.hpp"

namespace host_runner::wasm::worker {

namespace {

constexpr std::size_t max_artifact_bytes = std::size_t{512} << 20U;
constexpr std::size_t max_pem_bytes = std::size_t{1} << 20U;
constexpr std::size_t max_shown_frames = 16;

/// A line for the service's log. Its pipe does not block, because the module shares it.
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

Result<UniqueFd> duplicate(int fd) {
    UniqueFd copy(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
    if (!copy)
        return fail_errno(fmt::format("Cannot use descriptor {}", fd), errno);
    return copy;
}

/// The module's descriptors and, in `environment`, their names.
Result<std::vector<wasi::File>>
open_files(const Request& request, std::vector<std::pair<std::string, std::string>>& environment) {
    std::vector<wasi::FileEntry> entries{{.kind = wasi::FileKind::null, .name = "stdin"},
                                         {.kind = wasi::FileKind::standard_output},
                                         {.kind = wasi::FileKind::standard_error}};
    for (const auto port : request.ports)
        entries.push_back(
            {.kind = wasi::FileKind::listen,
             .name = fmt::format("{}", port),
             .protocol = request.tls_fd < 0 ? wasi::Protocol::tcp : wasi::Protocol::tls,
             .port = port});
    wasi::FileListMeans means;
    if (request.tls_fd >= 0) {
        const UniqueFd file(request.tls_fd);
        HR_TRY(const auto pem, read_all(file.get(), max_pem_bytes));
        wasi::TlsServerOptions options;
        options.certificate_chain_pem = pem;
        options.private_key_pem = pem;
        HR_TRY(means.tls_server, wasi::TlsServer::create(options));
    }
    HR_TRY(auto out, duplicate(STDOUT_FILENO));
    HR_TRY(auto err, duplicate(STDERR_FILENO));
    means.standard_output = wasi::HostStream{std::move(out)};
    means.standard_error = wasi::HostStream{std::move(err)};
    HR_TRY(auto opened, wasi::open_file_list(entries, std::move(means)));
    std::vector<std::string> names;
    for (const auto& entry : entries)
        names.push_back(entry.name);
    names[1] = "stdout";
    names[2] = "stderr";
    if (request.has_files) {
        // Directories come before sockets: C libraries look for them from 3 on.
        HR_TRY(auto root, wasi::open_directory("/", "/", wasi::Access::read_write));
        constexpr std::ptrdiff_t first_free = 3;
        opened.files.insert(std::next(opened.files.begin(), first_free), std::move(root));
        names.insert(std::next(names.begin(), first_free), "/");
    }
    const auto add = [&](const std::string& name, std::string value) {
        if (std::none_of(environment.begin(), environment.end(),
                         [&](const auto& each) { return each.first == name; }))
            environment.emplace_back(name, std::move(value));
    };
    add("FD_COUNT", fmt::format("{}", names.size()));
    add("FD_NAMES", fmt::format("{}", fmt::join(names, ":")));
    return std::move(opened.files);
}

/// What run_worker() answers for a call that ended, after saying why where the module did not.
int conclude(const Outcome& outcome, const wasi::Context& context, const Request& request) {
    const auto ended = [](WorkerExit code, std::string_view why) {
        say(why);
        return static_cast<int>(code);
    };
    switch (outcome.end) {
    case CallEnd::returned:
        return 0;
    case CallEnd::exited: {
        constexpr std::uint32_t visible_bits = 0xFF;
        const auto code = context.exit_code().value_or(0);
        return code != 0 && (code & visible_bits) == 0 ? 1 : static_cast<int>(code & visible_bits);
    }
    case CallEnd::cancelled:
        return static_cast<int>(WorkerExit::cancelled);
    case CallEnd::timed_out:
        return ended(WorkerExit::timed_out,
                     fmt::format("The module was ended after its time-out of {} ms",
                                 request.timeout.count()));
    case CallEnd::out_of_memory:
        return ended(WorkerExit::out_of_memory,
                     fmt::format("The module ran out of memory: {}", outcome.message));
    case CallEnd::limit:
        return ended(WorkerExit::limit,
                     fmt::format("The module passed a limit: {}", outcome.message));
    case CallEnd::host_failed:
        return ended(WorkerExit::host_failed,
                     fmt::format("The module's host failed: {}", outcome.message));
    case CallEnd::trapped:
        break;
    }
    auto text = fmt::format("The module trapped: {}", outcome.message);
    const auto shown = std::min(outcome.backtrace.size(), max_shown_frames);
    for (std::size_t i = 0; i < shown; ++i) {
        const auto& frame = outcome.backtrace[i];
        text += fmt::format("\n  at {} (function {}, byte {:#x})",
                            frame.function.empty() ? "?" : frame.function, frame.function_index,
                            frame.module_offset);
    }
    return ended(WorkerExit::trapped, text);
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

Result<int> run(const Request& request, UniqueFd& report) {
    HR_CHECK(limit_process());
    HR_TRY(const auto stop, catch_stop_signals());

    EngineSettings settings;
    settings.places = 1;
    settings.max_memory_bytes = request.memory_bytes;
    HR_TRY(const auto engine, Engine::make(settings));
    std::optional<Module> module;
    {
        const UniqueFd file(request.artifact_fd);
        HR_TRY(const auto artifact, read_all(file.get(), max_artifact_bytes));
        HR_TRY(module, engine.load(artifact));
    }
    HR_TRY(const auto linker, engine.make_linker(wasi::preview1_functions()));
    HR_TRY(const auto program, linker.bind(*module));

    auto environment = take_environment();
    wasi::ContextOptions options;
    options.arguments = request.arguments;
    HR_TRY(options.files, open_files(request, environment));
    options.environment = std::move(environment);
    HR_TRY(const auto context, wasi::Context::create(std::move(options)));
    HR_CHECK(confine());
    report.reset();

    CallRequest call;
    call.limits.memory_bytes = request.memory_bytes;
    call.deadline.cancel_fd = stop.get();
    if (request.timeout.count() > 0)
        call.deadline.at = std::chrono::steady_clock::now() + request.timeout;
    call.state = context.get();
    context->set_deadline(call.deadline);
    HR_TRY(const auto outcome, engine.call(program, call));
    if (outcome.end == CallEnd::returned || outcome.end == CallEnd::exited)
        context->close_files();
    return conclude(outcome, *context, request);
}

} // namespace

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

// SPDX-License-Identifier: Apache-2.0
#include <cerrno>
#include <iterator>
#include <memory>

#include <fcntl.h>
#include <unistd.h>

#include <fmt/format.h>

#include "host_runner/wasm/engine.hpp"
#include "host_runner/wasm/wasi/context.hpp"
#include "host_runner/wasm/wasi/sockets.hpp"
#include "host_runner/wasm/worker/worker.hpp"
#include "worlds.hpp"

namespace host_runner::wasm::worker {

namespace {

Result<UniqueFd> duplicate(int fd) {
    UniqueFd copy(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
    if (!copy)
        return fail_errno(fmt::format("Cannot use descriptor {}", fd), errno);
    return copy;
}

/// The module's descriptors and, in the environment, their names.
Result<std::vector<wasi::File>> open_files(Start& start) {
    const auto& request = start.request;
    std::vector<wasi::FileEntry> entries{{.kind = wasi::FileKind::null, .name = "stdin"},
                                         {.kind = wasi::FileKind::standard_output},
                                         {.kind = wasi::FileKind::standard_error}};
    for (const auto& port : request.ports)
        entries.push_back(listen_entry(
            request, port, start.pem.empty() ? wasi::Protocol::tcp : wasi::Protocol::tls));
    wasi::FileListMeans means;
    if (!start.pem.empty()) {
        wasi::TlsServerOptions options;
        options.certificate_chain_pem = start.pem;
        options.private_key_pem = start.pem;
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
        HR_TRY(auto root, open_root());
        constexpr std::ptrdiff_t first_free = 3;
        opened.files.insert(std::next(opened.files.begin(), first_free), std::move(root));
        names.insert(std::next(names.begin(), first_free), "/");
    }
    add_names(start.environment, names);
    return std::move(opened.files);
}

/// The exit code for a call that ended, after saying why where the module did not.
int conclude(const Outcome& outcome, const wasi::Context& context, const Request& request) {
    const auto ended = [](WorkerExit code, std::string_view why) {
        say(why);
        return static_cast<int>(code);
    };
    switch (outcome.end) {
    case CallEnd::returned:
        return 0;
    case CallEnd::exited:
        return visible_exit_code(context.exit_code().value_or(0));
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
    return ended(WorkerExit::trapped, describe_trap(outcome));
}

} // namespace

Result<int> run_command(Start& start) {
    const auto& request = start.request;
    EngineSettings settings;
    settings.places = 1;
    settings.max_memory_bytes = request.memory_bytes;
    HR_TRY(const auto engine, Engine::make(settings));
    HR_TRY(const auto program, load_program(engine, start));

    wasi::ContextOptions options;
    options.arguments = request.arguments;
    HR_TRY(options.files, open_files(start));
    options.environment = start.environment;
    HR_TRY(const auto context, wasi::Context::create(std::move(options)));
    HR_CHECK(start.begin());

    CallRequest call;
    call.limits.memory_bytes = request.memory_bytes;
    call.deadline.cancel_fd = start.stop_fd;
    if (request.timeout.count() > 0)
        call.deadline.at = std::chrono::steady_clock::now() + request.timeout;
    call.state = context.get();
    context->set_deadline(call.deadline);
    HR_TRY(const auto outcome, engine.call(program, call));
    if (outcome.end == CallEnd::returned || outcome.end == CallEnd::exited)
        context->close_files();
    return conclude(outcome, *context, request);
}

} // namespace host_runner::wasm::worker

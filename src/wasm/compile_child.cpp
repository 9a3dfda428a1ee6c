// SPDX-License-Identifier: Apache-2.0
#include "host_runner/wasm/compile.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <iostream>

#include <malloc.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <fmt/format.h>

#include "handles.hpp"
#include "host_runner/base/exit_code.hpp"
#include "host_runner/base/files.hpp"
#include "host_runner/wasm/engine.hpp"

namespace host_runner::wasm {

namespace {

constexpr int artifact_number = 3; ///< The descriptor the child writes to.

/// Every error that the parent tells apart has an exit code of its own.
constexpr std::array known_codes{ErrorCode::corrupt_data, ErrorCode::unsupported,
                                 ErrorCode::resource_exhausted};

Result<std::uint64_t> parse_number(const std::string& text) {
    std::uint64_t value = 0;
    const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (problem != std::errc{} || end != text.data() + text.size() || value == 0)
        return fail(ErrorCode::invalid_argument, fmt::format("Not a positive number: {}", text));
    return value;
}

/// @param soft the signal or error comes here; one more is the hard limit, which ends a process
/// that ignores the signal
Result<void> limit(__rlimit_resource resource, std::uint64_t soft) {
    rlimit now{};
    ::getrlimit(resource, &now);
    const rlimit wanted{std::min<rlim_t>(soft, now.rlim_max),
                        std::min<rlim_t>(soft + 1, now.rlim_max)};
    if (::setrlimit(resource, &wanted) != 0)
        return fail_errno("Cannot limit the compiler's process", errno);
    return {};
}

struct ChildLimits {
    std::uint64_t module_bytes = 0;
    std::uint64_t artifact_bytes = 0;
    std::uint64_t memory_bytes = 0;
    std::uint64_t cpu_seconds = 0;
};

Result<ChildLimits> parse_limits(std::span<const std::string> arguments) {
    if (arguments.size() != 4)
        return fail(ErrorCode::invalid_argument,
                    "Usage: compile MODULE_BYTES ARTIFACT_BYTES MEMORY_BYTES CPU_SECONDS");
    ChildLimits limits;
    HR_TRY(limits.module_bytes, parse_number(arguments[0]));
    HR_TRY(limits.artifact_bytes, parse_number(arguments[1]));
    HR_TRY(limits.memory_bytes, parse_number(arguments[2]));
    HR_TRY(limits.cpu_seconds, parse_number(arguments[3]));
    return limits;
}

Result<void> run_child(std::span<const std::string> arguments) {
    HR_TRY(const auto limits, parse_limits(arguments));
    // Before anything of the module is read. No core dump: it would hold the tenant's module. A
    // reserve of address space for each thread's heap would be counted as memory, so the threads
    // share few heaps.
    ::mallopt(M_ARENA_MAX, 2);
    ::prctl(PR_SET_DUMPABLE, 0);
    HR_CHECK(limit(RLIMIT_CORE, 0));
    HR_CHECK(limit(RLIMIT_CPU, limits.cpu_seconds));
    HR_CHECK(limit(RLIMIT_AS, limits.memory_bytes));
    HR_CHECK(limit(RLIMIT_FSIZE, limits.artifact_bytes));
    auto module = read_all(STDIN_FILENO, limits.module_bytes);
    if (!module && module.error().code == ErrorCode::corrupt_data)
        return fail(ErrorCode::resource_exhausted,
                    fmt::format("The module is larger than {} bytes", limits.module_bytes));
    HR_CHECK(module);
    HR_TRY(const auto artifact, compile(*module));
    return write_all(artifact_number, artifact);
}

/// The last words of Rust's and C++'s allocators.
bool ran_out_of_memory(const std::string& words) {
    return words.find("memory allocation of") != std::string::npos ||
           words.find("bad_alloc") != std::string::npos;
}

Error child_failure(const CapturedOutput& output, const CompileLimits& limits) {
    Error error;
    if (output.status.exited) {
        error.message = plain_text(output.err);
        for (const auto code : known_codes)
            if (output.status.code == static_cast<int>(exit_code_for(code)))
                error.code = code;
        if (error.code == ErrorCode::internal)
            error.message = fmt::format("The compiler's process ended with {}: {}",
                                        output.status.describe(), error.message);
        return error;
    }
    const int signal = output.status.signal;
    if (signal == SIGXCPU || signal == SIGKILL) {
        error.code = ErrorCode::resource_exhausted;
        error.message = fmt::format("Compiling the module took more than {} s of processor time",
                                    limits.cpu.count());
    } else if (signal == SIGXFSZ) {
        error.code = ErrorCode::resource_exhausted;
        error.message =
            fmt::format("The compiled module is larger than {} bytes", limits.artifact_bytes);
    } else if (signal == SIGABRT && ran_out_of_memory(output.err)) {
        error.code = ErrorCode::resource_exhausted;
        error.message = fmt::format("Compiling the module took more than {} MiB of memory",
                                    limits.memory_bytes >> 20);
    } else {
        error.code = ErrorCode::internal;
        error.message = fmt::format("The compiler's process ended with {}: {}",
                                    output.status.describe(), plain_text(output.err));
    }
    return error;
}

} // namespace

int compile_main(std::span<const std::string> arguments) {
    const auto done = run_child(arguments);
    if (done)
        return static_cast<int>(ExitCode::success);
    std::cerr << done.error().describe() << '\n';
    return static_cast<int>(exit_code_for(done.error().code));
}

Result<void> compile_in_child(ProcessLauncher& launcher, const std::vector<std::string>& command,
                              int module_fd, int artifact_fd, const CompileLimits& limits) {
    ProcessSpec spec;
    spec.argv = command;
    for (const auto number : {limits.module_bytes, limits.artifact_bytes, limits.memory_bytes,
                              static_cast<std::uint64_t>(limits.cpu.count())})
        spec.argv.push_back(fmt::format("{}", number));
    // The child needs nothing of ours, and a module's author must not learn it by a bug in the
    // compiler.
    spec.environment.emplace();
    spec.user = limits.user;
    spec.stdin_fd = module_fd;
    spec.pass_fds = {{artifact_number, artifact_fd}};
    HR_TRY(const auto output, run_captured(launcher, spec, limits.wall, std::size_t{64} << 10));
    if (output.status.exited && output.status.code == 0)
        return {};
    return tl::unexpected<Error>(child_failure(output, limits));
}

} // namespace host_runner::wasm

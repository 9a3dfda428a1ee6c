// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cerrno>
#include <chrono>
#include <mutex>
#include <thread>

#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <fmt/format.h>

#include "host_runner/base/files.hpp"
#include "host_runner/base/process.hpp"
#include "host_runner/base/units.hpp"
#include "host_runner/cli/run_view.hpp"
#include "host_runner/instance/control.hpp"
#include "pidfd.hpp"
#include "verbs.hpp"

namespace host_runner::cli {

namespace {

using instance::Instance;
using instance::Registry;

/// Stops one instance after the other or side by side, and reports in whole lines.
class Stopper {
public:
    Stopper(const Registry& registry, instance::StopRequest request)
        : registry_(registry), request_(request) {}

    /// Thread-safe.
    void stop(const Instance& one) {
        auto code = stop_one(one);
        const std::lock_guard lock(mutex_);
        if (!code) {
            print_error(code.error());
            code = to_int(exit_code_for(code.error().code));
        }
        if (exit_code_ == to_int(ExitCode::success))
            exit_code_ = *code;
    }

    /// Of the first that did not stop as asked.
    [[nodiscard]] int exit_code() const noexcept {
        return exit_code_;
    }

private:
    VerbResult stop_one(const Instance& one) {
        const auto began = std::chrono::steady_clock::now();
        const bool did_run = !one.end;
        if (did_run)
            HR_CHECK(end_run(one));
        const auto took = std::chrono::duration_cast<std::chrono::milliseconds>(
            std::chrono::steady_clock::now() - began);
        auto after = registry_.find(one.record.id);
        // Another `stop` may have removed it by now.
        if (!after && after.error().code == ErrorCode::not_found)
            return report(one, did_run, took, "stopped", "removed");
        HR_CHECK(after);
        const auto how = after->end ? describe_end(*after->end) : std::string("started anew");
        const bool was_killed = did_run && after->end && !request_.force &&
                                after->end->reason == instance::EndReason::killed_by_force;
        std::string rest = "removed";
        if (after->record.name.empty()) {
            // Another runner that ends may have pruned it since.
            const auto removed = registry_.remove(*after);
            if (!removed && removed.error().code != ErrorCode::not_found)
                return tl::unexpected<Error>(removed.error());
        } else {
            rest = fmt::format("its disk and identity stay: host_runner rm {} removes them",
                               after->record.name);
        }
        HR_TRY(const auto code, report(one, did_run, took, how, rest));
        return was_killed ? to_int(ExitCode::stopped_by_force) : code;
    }

    VerbResult report(const Instance& one, bool did_run, std::chrono::milliseconds took,
                      std::string_view how, std::string_view rest) {
        return say(one, did_run ? fmt::format("{} ({}); {}", how, format_duration(took), rest)
                                : fmt::format("did not run; {}", rest));
    }

    Result<void> end_run(const Instance& one) {
        const auto paths = registry_.paths(one.record.id);
        auto stopped = instance::request_stop(
            paths.control_socket(), paths.lock(), request_, [&](const instance::StopStep& step) {
                if (!step.done)
                    static_cast<void>(say(
                        one,
                        fmt::format("{}, at most {}", step.text,
                                    format_duration(std::chrono::milliseconds(step.limit_ms)))));
            });
        if (stopped)
            return {};
        const auto code = stopped.error().code;
        if (code != ErrorCode::unavailable && code != ErrorCode::timeout)
            return stopped;
        if (!request_.force) {
            stopped.error().hint =
                fmt::format("host_runner stop --force -i {} kills the runner, and QEMU with it",
                            short_reference(one.record));
            return stopped;
        }
        return kill_runner(one, paths);
    }

    /// For a runner that does not answer: QEMU dies with it.
    static Result<void> kill_runner(const Instance& one, const instance::InstancePaths& paths) {
        if (auto runner = open_process(one.record.runner)) {
            if (::syscall(SYS_pidfd_send_signal, runner->get(), SIGKILL, nullptr, 0) != 0 &&
                errno != ESRCH)
                return fail_errno(fmt::format("Cannot kill the runner (pid {}) of {}",
                                              one.record.runner.pid, label(one.record)),
                                  errno);
            HR_CHECK(wait_for_end(*runner, kill_deadline));
        } else if (runner.error().code != ErrorCode::not_found) {
            return tl::unexpected<Error>(std::move(runner).error());
        }
        HR_TRY(const bool is_locked, is_file_locked(paths.lock()));
        if (is_locked)
            return fail(ErrorCode::timeout,
                        fmt::format("{} still runs after its runner was killed", label(one.record)),
                        "the kernel may still be giving back its memory: try again in a moment");
        return {};
    }

    VerbResult say(const Instance& one, std::string_view text) {
        const std::lock_guard lock(mutex_);
        HR_CHECK(print_out(fmt::format("{}: {}\n", label(one.record), text)));
        return to_int(ExitCode::success);
    }

    static constexpr std::chrono::milliseconds kill_deadline{30'000};
    const Registry& registry_;
    instance::StopRequest request_;
    std::mutex mutex_; // guards the output and all below
    int exit_code_ = to_int(ExitCode::success);
};

VerbResult stop_all(const Registry& registry, const instance::StopRequest& request) {
    HR_TRY(auto all, list_instances(registry));
    std::erase_if(all, [](const Instance& one) { return one.end.has_value(); });
    if (all.empty()) {
        HR_CHECK(print_out("No VM runs\n"));
        return to_int(ExitCode::success);
    }
    Stopper stopper(registry, request);
    // Side by side, because each waits for its own guest; a thread costs far less than its VM.
    std::vector<std::thread> threads;
    threads.reserve(all.size());
    for (const auto& one : all)
        threads.emplace_back([&stopper, &one] { stopper.stop(one); });
    for (auto& thread : threads)
        thread.join();
    return stopper.exit_code();
}

} // namespace

VerbResult run_verb_stop(const Context& context) {
    const auto& settings = context.settings;
    const auto argument = context.argument(0);
    auto reference = settings.text("id");
    if (!reference.empty() && !argument.empty())
        return fail(ErrorCode::invalid_argument,
                    fmt::format("stop got two instances: --id {} and {}", reference, argument),
                    "stop one at a time, or all with --all");
    if (reference.empty())
        reference = argument;
    const bool all = settings.is_on("all");
    if (all == !reference.empty())
        return fail(
            ErrorCode::invalid_argument,
            all ? fmt::format("stop --all and the instance {} contradict each other", reference)
                : std::string("stop needs an instance, or --all"),
            "for example host_runner stop -i 3f2a, or host_runner stop --all");
    instance::StopRequest request;
    request.force = settings.is_on("force");
    HR_TRY(const auto timeout, settings.parsed_if_set("timeout", parse_duration));
    request.timeout = timeout.value_or(std::chrono::milliseconds(0));
    HR_TRY(const auto registry, open_registry());
    if (all)
        return stop_all(registry, request);
    HR_TRY(const auto one, registry.find(reference));
    Stopper stopper(registry, request);
    stopper.stop(one);
    return stopper.exit_code();
}

} // namespace host_runner::cli

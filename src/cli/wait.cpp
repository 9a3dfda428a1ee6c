// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <optional>
#include <thread>

#include <fmt/format.h>

#include "host_runner/base/units.hpp"
#include "host_runner/cli/run_view.hpp"
#include "pidfd.hpp"
#include "verbs.hpp"

namespace host_runner::cli {

namespace {

using instance::Instance;
using instance::Registry;
using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

/// The runner tells nobody when its guest gets ready, so it is asked; its end is an event.
constexpr milliseconds ask_every{200};

/// nullopt: no limit.
using Deadline = std::optional<Clock::time_point>;

milliseconds time_left(const Deadline& deadline) {
    if (!deadline)
        return milliseconds(-1);
    return std::max(milliseconds(0), std::chrono::ceil<milliseconds>(*deadline - Clock::now()));
}

/// Waits at most `limit` (negative: for ever). @return true when the runner has ended
Result<bool> runner_ended(const Instance& one, milliseconds limit) {
    const auto runner = open_process(one.record.runner);
    if (!runner && runner.error().code == ErrorCode::not_found)
        return true;
    if (!runner)
        return tl::unexpected<Error>(runner.error());
    const auto waited = wait_for_end(*runner, limit);
    if (!waited && waited.error().code == ErrorCode::timeout)
        return false;
    HR_CHECK(waited);
    return true;
}

/// What is known of it now; nullopt when `stop` has removed it.
Result<std::optional<Instance>> look_again(const Registry& registry, const std::string& id) {
    auto found = registry.find(id);
    if (!found && found.error().code == ErrorCode::not_found)
        return std::nullopt;
    HR_CHECK(found);
    return std::move(*found);
}

VerbResult report_end(const Instance& one) {
    HR_CHECK(print_out(fmt::format("{} ended: {}\n", label(one.record), describe_end(*one.end))));
    return to_int(one.end->exit_code);
}

class Waiter {
public:
    Waiter(const Registry& registry, Deadline deadline)
        : registry_(registry), deadline_(deadline) {}

    VerbResult for_exit(Instance one) const {
        for (;;) {
            if (one.end)
                return report_end(one);
            HR_TRY(const bool ended, runner_ended(one, time_left(deadline_)));
            if (!ended)
                return too_late(one, "still runs");
            HR_TRY(auto next, look_again(registry_, one.record.id));
            if (!next)
                return report_removed(one);
            // The kernel frees the lock a moment after the process is gone.
            if (!next->end)
                std::this_thread::sleep_for(ask_every);
            one = std::move(*next);
        }
    }

    VerbResult for_ready(Instance one) const {
        for (;;) {
            if (one.end)
                return ended_before_ready(one);
            if (one.state == instance::State::running) {
                HR_CHECK(print_out(fmt::format("{} is ready\n", label(one.record))));
                return to_int(ExitCode::success);
            }
            const auto left = time_left(deadline_);
            if (left.count() == 0)
                return too_late(one, "is not ready");
            HR_CHECK(runner_ended(one, left.count() < 0 ? ask_every : std::min(ask_every, left)));
            HR_TRY(auto next, look_again(registry_, one.record.id));
            if (!next)
                return report_removed(one);
            one = std::move(*next);
        }
    }

private:
    static VerbResult report_removed(const Instance& one) {
        HR_CHECK(print_out(fmt::format("{} was stopped and removed\n", label(one.record))));
        return to_int(ExitCode::success);
    }

    static VerbResult ended_before_ready(const Instance& one) {
        print_error(
            {ErrorCode::wrong_state,
             fmt::format("{} ended before it was ready: {}", label(one.record),
                         describe_end(*one.end)),
             fmt::format("host_runner logs {} shows its console", short_reference(one.record)), 0});
        return to_int(one.end->exit_code == ExitCode::success ? ExitCode::conflict
                                                              : one.end->exit_code);
    }

    static VerbResult too_late(const Instance& one, std::string_view what) {
        return fail(
            ErrorCode::timeout, fmt::format("{} {}: --timeout has passed", label(one.record), what),
            fmt::format("host_runner inspect {} says what it does", short_reference(one.record)));
    }

    const Registry& registry_;
    Deadline deadline_;
};

} // namespace

VerbResult run_verb_wait(const Context& context) {
    HR_TRY(const auto timeout, context.settings.parsed_if_set("timeout", parse_duration));
    const Deadline deadline = timeout ? Deadline(Clock::now() + *timeout) : std::nullopt;
    HR_TRY(const auto registry, open_registry());
    HR_TRY(auto one, registry.find(context.argument(0)));
    const Waiter waiter(registry, deadline);
    return context.settings.text("for") == "ready" ? waiter.for_ready(std::move(one))
                                                   : waiter.for_exit(std::move(one));
}

} // namespace host_runner::cli

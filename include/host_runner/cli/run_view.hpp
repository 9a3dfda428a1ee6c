// SPDX-License-Identifier: Apache-2.0
#pragma once

/// How `run` shows what happens: a live line on a terminal, plain lines, or JSON lines.

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "host_runner/base/error.hpp"
#include "host_runner/instance/run.hpp"

namespace host_runner::cli {

class RunView {
public:
    virtual ~RunView() = default;
    virtual void on_event(const instance::RunEvent& event) = 0;
    /// The last call, once everything has been given back.
    virtual void on_outcome(const instance::RunOutcome& outcome) = 0;
    /// Instead of on_outcome(), when nothing was started.
    virtual void on_error(const Error& error) = 0;
};

/// Takes finished text; must not throw. A view may call it from two threads, never at once.
using TextSink = std::function<void(std::string_view)>;

/// Where a view writes: results and progress, and what is abnormal.
struct Sinks {
    TextSink out;
    TextSink err;
};

/// One line per event, "[   1.23 s] ..."; warnings, and an end that is a failure, go to `err`.
[[nodiscard]] std::unique_ptr<RunView> make_plain_view(Sinks sinks);

/// As the plain view, but what passes stands in one line that is redrawn with the time, at most
/// `columns` wide (0: no limit). A thread redraws it, because the loop of the run makes no call
/// while nothing happens; it blocks all signals and sleeps while nothing passes.
[[nodiscard]] std::unique_ptr<RunView> make_live_view(Sinks sinks, std::size_t columns);

/// One JSON object per line on `out`: {"schema_version":1,"event":"started","elapsed_ms":31,
/// "text":"4711"}; stop_step adds limit_ms, ended adds reason and exit_code, error adds code and
/// hint.
[[nodiscard]] std::unique_ptr<RunView> make_json_view(Sinks sinks);

/// An end in words, e.g. "the guest powered off" or "QEMU ended by itself: signal 9 (Killed)".
[[nodiscard]] std::string describe_end(const instance::End& end);

} // namespace host_runner::cli

// SPDX-License-Identifier: Apache-2.0
#include "host_runner/cli/run_view.hpp"

#include <condition_variable>
#include <mutex>

#include <gmock/gmock.h>

#include "fakes/golden_file.hpp"

namespace host_runner::cli {
namespace {

using instance::EndReason;
using instance::RunEvent;
using testing::HasSubstr;
using testing::Not;
using Kind = RunEvent::Kind;
using std::chrono::milliseconds;

/// `path` is relative to the project's folder.
testing::AssertionResult is_as_committed(const std::string& path, const std::string& text) {
    return tests::matches_golden(std::string(HOST_RUNNER_SOURCE_DIR) + "/" + path, text);
}

/// Keeps what a view writes; a thread of the view may write while a test waits.
class Written {
public:
    [[nodiscard]] Sinks sinks() {
        return {[this](std::string_view text) { add(out_, text); },
                [this](std::string_view text) {
                    add(err_, text);
                }};
    }
    [[nodiscard]] std::string out() const {
        const std::lock_guard lock(mutex_);
        return out_;
    }
    [[nodiscard]] std::string err() const {
        const std::lock_guard lock(mutex_);
        return err_;
    }
    /// False when `out` does not get longer than `length` in time.
    [[nodiscard]] bool wait_for_more_than(std::size_t length) {
        std::unique_lock lock(mutex_);
        return changed_.wait_for(lock, std::chrono::seconds(20),
                                 [&] { return out_.size() > length; });
    }

private:
    void add(std::string& to, std::string_view text) {
        const std::lock_guard lock(mutex_);
        to += text;
        changed_.notify_all();
    }
    mutable std::mutex mutex_;
    std::condition_variable changed_;
    std::string out_;
    std::string err_;
};

void tell_story(RunView& view) {
    const std::vector<RunEvent> story{
        {Kind::warning, "--tee none: this VM is not confidential", milliseconds(2), {}},
        {Kind::notice, "software emulation: the processor has no vmx or svm", milliseconds(3), {}},
        {Kind::created, "3f2a1b0c9d8e", milliseconds(5), {}},
        {Kind::port, "tcp:127.0.0.1:8080:80", milliseconds(6), {}},
        {Kind::started, "4711", milliseconds(31), {}},
        {Kind::progress, "mounting \"data\"", milliseconds(4200), {}},
        {Kind::boot_error, "service web: no such program", milliseconds(4300), {}},
        {Kind::ready, "", milliseconds(5100), {}},
        {Kind::stop_step, "guest API Shutdown", milliseconds(65'000), milliseconds(30'000)},
        {Kind::restart, "qemu_died: starting again in 5.00 s (1 of 5)", milliseconds(70'000), {}},
        {Kind::ended, "stop_requested", milliseconds(70'300), {}},
    };
    for (const auto& event : story)
        view.on_event(event);
}

const instance::RunOutcome stopped{"3f2a1b0c9d8e",
                                   {1, EndReason::stop_requested, ExitCode::success, ""}};
const instance::RunOutcome died{
    "3f2a1b0c9d8e", {1, EndReason::qemu_died, ExitCode::qemu_died, "signal 9 (Killed)"}};

TEST(PlainView, writes_a_line_per_event) {
    Written written;
    const auto view = make_plain_view(written.sinks());
    tell_story(*view);
    view->on_outcome(stopped);
    EXPECT_TRUE(is_as_committed("tests/golden/table/run.txt", written.out()));
    EXPECT_EQ(written.err(), "[   0.00 s] warning: --tee none: this VM is not confidential\n");
}

TEST(PlainView, writes_an_end_that_is_a_failure_to_stderr) {
    Written written;
    const auto view = make_plain_view(written.sinks());
    view->on_outcome(died);
    EXPECT_EQ(written.out(), "");
    EXPECT_THAT(written.err(), HasSubstr("ended: QEMU ended by itself: signal 9 (Killed)"));
}

TEST(JsonView, writes_an_object_per_event) {
    Written written;
    const auto view = make_json_view(written.sinks());
    tell_story(*view);
    view->on_outcome(died);
    EXPECT_TRUE(is_as_committed("tests/golden/json/run.jsonl", written.out()));
    EXPECT_EQ(written.err(), "");
}

TEST(JsonView, tells_why_nothing_was_started) {
    Written written;
    const auto view = make_json_view(written.sinks());
    view->on_error({ErrorCode::already_exists, "Port 80 is taken", "use another", 0});
    EXPECT_EQ(written.out(),
              "{\"schema_version\":1,\"event\":\"error\",\"elapsed_ms\":0,\"text\":\"Port 80 is "
              "taken\",\"code\":\"already_exists\",\"hint\":\"use another\",\"exit_code\":4}\n");
}

TEST(JsonView, stays_valid_with_any_bytes) {
    Written written;
    make_json_view(written.sinks())->on_event({Kind::progress, "\xff\x01", milliseconds(0), {}});
    EXPECT_THAT(written.out(), HasSubstr("\\u0001"));
    EXPECT_THAT(written.out(), Not(HasSubstr("\xff")));
}

TEST(LiveView, keeps_lines_of_weight_and_redraws_what_passes) {
    Written written;
    const auto view = make_live_view(written.sinks(), 80);
    tell_story(*view);
    view->on_outcome(stopped);
    const auto out = written.out();
    EXPECT_THAT(out, HasSubstr("QEMU runs, pid 4711\n"));
    EXPECT_THAT(out, HasSubstr("guest: mounting \"data\"\x1b[K"));
    EXPECT_THAT(out, Not(HasSubstr("guest: mounting \"data\"\n")));
    EXPECT_THAT(out, HasSubstr("ended: stopped as asked\n"));
}

TEST(LiveView, redraws_the_time_while_nothing_happens) {
    Written written;
    const auto view = make_live_view(written.sinks(), 80);
    view->on_event({Kind::started, "4711", milliseconds(0), {}});
    EXPECT_TRUE(written.wait_for_more_than(written.out().size()));
}

TEST(LiveView, leaves_no_live_line_behind) {
    Written written;
    {
        const auto view = make_live_view(written.sinks(), 80);
        view->on_event({Kind::started, "4711", milliseconds(0), {}});
    }
    EXPECT_TRUE(written.out().ends_with("\r\x1b[K"));
}

TEST(LiveView, cuts_the_live_line_at_the_terminals_width_between_characters) {
    Written written;
    const auto view = make_live_view(written.sinks(), 24);
    view->on_event(
        {Kind::progress, "x\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4", milliseconds(0), {}});
    const auto out = written.out();
    const auto begin = out.find('\r') + 1;
    const auto line = out.substr(begin, out.find('\x1b', begin) - begin);
    EXPECT_LT(line.size(), 24U);
    EXPECT_EQ(static_cast<unsigned char>(line.back()), 0xa4);
}

} // namespace
} // namespace host_runner::cli

// SPDX-License-Identifier: Apache-2.0
#include "host_runner/instance/ending.hpp"

#include <csignal>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace host_runner::instance {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;

EndFacts exited(int code) {
    EndFacts facts;
    facts.exit = {true, code, 0};
    facts.time_ms = 1234;
    return facts;
}

EndFacts shut_down(qemu::ShutdownReason reason) {
    auto facts = exited(0);
    facts.qmp_answered = true;
    facts.shutdown = reason;
    return facts;
}

TEST(DecideEnd, takes_a_guest_poweroff_for_success) {
    const auto end = decide_end(shut_down(qemu::ShutdownReason::guest_shutdown));
    EXPECT_EQ(end.reason, EndReason::guest_shutdown);
    EXPECT_EQ(end.exit_code, ExitCode::success);
    EXPECT_EQ(end.time_ms, 1234);
}

TEST(DecideEnd, tells_a_reset_from_a_poweroff) {
    const auto end = decide_end(shut_down(qemu::ShutdownReason::guest_reset));
    EXPECT_EQ(end.reason, EndReason::guest_reset);
    EXPECT_EQ(end.exit_code, ExitCode::guest_reset);
}

TEST(DecideEnd, takes_a_reset_after_a_boot_error_for_a_failed_boot) {
    auto facts = shut_down(qemu::ShutdownReason::guest_reset);
    facts.boot_error = "Failed to get app keys";
    const auto end = decide_end(facts);
    EXPECT_EQ(end.reason, EndReason::guest_boot_error);
    EXPECT_EQ(end.exit_code, ExitCode::guest_boot_error);
    EXPECT_EQ(end.detail, "Failed to get app keys");
}

TEST(DecideEnd, forgets_a_boot_error_once_the_guest_was_ready) {
    auto facts = shut_down(qemu::ShutdownReason::guest_shutdown);
    facts.boot_error = "dstack-gateway registration failed";
    facts.was_ready = true;
    EXPECT_EQ(decide_end(facts).reason, EndReason::guest_shutdown);
}

TEST(DecideEnd, reports_a_panic_with_its_words) {
    auto facts = shut_down(qemu::ShutdownReason::guest_panic);
    facts.panicked = true;
    facts.panic_message = "TD misconfigured";
    const auto end = decide_end(facts);
    EXPECT_EQ(end.reason, EndReason::guest_panic);
    EXPECT_EQ(end.exit_code, ExitCode::guest_panic);
    EXPECT_EQ(end.detail, "TD misconfigured");
}

TEST(DecideEnd, takes_an_early_exit_for_a_refused_start) {
    auto facts = exited(1);
    facts.stderr_text = "qemu-system-x86_64: something nobody has seen before\n";
    const auto end = decide_end(facts);
    EXPECT_EQ(end.reason, EndReason::qemu_start_failed);
    EXPECT_EQ(end.exit_code, ExitCode::qemu_start_failed);
    EXPECT_THAT(end.detail, HasSubstr("something nobody has seen before"));
}

TEST(DecideEnd, explains_a_known_message) {
    auto facts = exited(1);
    facts.stderr_text = "qemu-system-x86_64: vm-type tdx not supported by KVM\n";
    const auto end = decide_end(facts);
    EXPECT_THAT(end.detail, HasSubstr("vm-type tdx not supported by KVM"));
    EXPECT_THAT(end.detail, HasSubstr("BIOS"));
}

TEST(DecideEnd, takes_a_late_exit_without_a_reason_for_a_death) {
    auto facts = exited(1);
    facts.qmp_answered = true;
    EXPECT_EQ(decide_end(facts).reason, EndReason::qemu_died);
}

TEST(DecideEnd, names_the_signal_that_killed_qemu) {
    EndFacts facts;
    facts.exit = {false, 0, SIGKILL};
    facts.qmp_answered = true;
    const auto end = decide_end(facts);
    EXPECT_EQ(end.reason, EndReason::qemu_died);
    EXPECT_EQ(end.exit_code, ExitCode::qemu_died);
    EXPECT_THAT(end.detail, HasSubstr("signal 9"));
}

TEST(DecideEnd, tells_a_foreign_sigterm_from_a_stop) {
    const auto end = decide_end(shut_down(qemu::ShutdownReason::host_signal));
    EXPECT_EQ(end.reason, EndReason::qemu_died);
    EXPECT_THAT(end.detail, HasSubstr("another process"));
}

TEST(DecideEnd, takes_any_orderly_end_after_a_stop_for_the_stop) {
    for (const auto reason : {qemu::ShutdownReason::guest_shutdown, qemu::ShutdownReason::host_quit,
                              qemu::ShutdownReason::host_signal}) {
        auto facts = shut_down(reason);
        facts.stop_requested = true;
        const auto end = decide_end(facts);
        EXPECT_EQ(end.reason, EndReason::stop_requested);
        EXPECT_EQ(end.exit_code, ExitCode::success);
    }
}

TEST(DecideEnd, says_when_a_stop_needed_sigkill) {
    EndFacts facts;
    facts.exit = {false, 0, SIGKILL};
    facts.stop_requested = true;
    facts.kill_sent = true;
    const auto end = decide_end(facts);
    EXPECT_EQ(end.reason, EndReason::killed_by_force);
    EXPECT_EQ(end.exit_code, ExitCode::stopped_by_force);
}

TEST(DecideEnd, reports_a_crash_during_a_stop) {
    EndFacts facts;
    facts.exit = {false, 0, SIGSEGV};
    facts.stop_requested = true;
    EXPECT_EQ(decide_end(facts).reason, EndReason::qemu_died);
}

TEST(PortConflict, is_seen_in_qemus_words) {
    auto facts = exited(1);
    facts.stderr_text =
        "qemu-system-x86_64: Could not set up host forwarding rule 'tcp:127.0.0.1:8080-:80'\n";
    EXPECT_TRUE(is_port_conflict(facts));
    facts.qmp_answered = true;
    EXPECT_FALSE(is_port_conflict(facts)) << "QEMU was past its command line";
}

TEST(RestartBackOff, does_nothing_unless_asked_for) {
    RestartBackOff back_off{spec::RestartRule{}};
    EXPECT_FALSE(back_off.next(1s));
}

TEST(RestartBackOff, doubles_up_to_five_minutes) {
    RestartBackOff back_off(spec::RestartRule{true, 20});
    std::vector<std::chrono::milliseconds> delays;
    for (int i = 0; i < 8; ++i)
        delays.push_back(back_off.next(1s).value());
    EXPECT_THAT(delays, testing::ElementsAre(5s, 10s, 20s, 40s, 80s, 160s, 300s, 300s));
}

TEST(RestartBackOff, gives_up_after_its_number_in_a_row) {
    RestartBackOff back_off(spec::RestartRule{true, 2});
    EXPECT_TRUE(back_off.next(1s));
    EXPECT_TRUE(back_off.next(1s));
    EXPECT_FALSE(back_off.next(1s));
}

TEST(RestartBackOff, starts_anew_after_a_long_run) {
    RestartBackOff back_off(spec::RestartRule{true, 1});
    EXPECT_TRUE(back_off.next(1s));
    EXPECT_EQ(back_off.next(300s), 5s);
}

} // namespace
} // namespace host_runner::instance

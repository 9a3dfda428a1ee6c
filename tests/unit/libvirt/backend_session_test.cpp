// SPDX-License-Identifier: Apache-2.0
#include "backend_session.hpp"

#include <algorithm>
#include <csignal>
#include <optional>
#include <thread>

#include <sys/wait.h>
#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "fakes/temporary_directory.hpp"
#include "host_runner/base/files.hpp"
#include "host_runner/instance/ending.hpp"

struct HostRunnerLibvirtSession {
    HostRunnerLibvirtSink sink;
    void* context;
};

namespace host_runner::libvirt {
namespace {

using namespace std::chrono_literals;
using instance::EndReason;
using instance::MachineEnd;
using instance::StopStepKind;
using testing::ElementsAre;
using testing::HasSubstr;

/// libvirt.so as a test plays it.
struct FakeLibvirt {
    HostRunnerLibvirtSession session{};
    std::vector<std::string> calls;
    std::int64_t last_number = 0;
    /// What open() leads to; nothing at all where it is empty.
    std::optional<SessionEvent> answer = SessionEvent{host_runner_libvirt_connected, 9'000'000, ""};
};
FakeLibvirt* fake = nullptr; // NOLINT: the module's functions carry no pointer of a test's

const HostRunnerLibvirtModule fake_module{
    host_runner_libvirt_abi,
    9'000'000,
    [](const char* uri, HostRunnerLibvirtSink sink, void* context) {
        fake->calls.push_back(std::string("open ") + uri);
        fake->session = {sink, context};
        // On another thread, as the real one does.
        if (fake->answer)
            std::thread([] {
                fake->session.sink(fake->session.context, fake->answer->kind, fake->answer->number,
                                   fake->answer->text.c_str());
            }).join();
        return &fake->session;
    },
    [](HostRunnerLibvirtSession*, const char* name, const char*) {
        fake->calls.push_back(std::string("start ") + name);
    },
    [](HostRunnerLibvirtSession*, HostRunnerLibvirtRequest request, std::int64_t number) {
        fake->calls.push_back("request " + std::to_string(request));
        fake->last_number = number;
    },
    [](HostRunnerLibvirtSession*, std::uint32_t) {
        fake->calls.emplace_back("close");
    }};

class BackendSessionTest : public testing::Test {
protected:
    BackendSessionTest() : loop_(std::move(EventLoop::create().value())) {
        fake = &libvirt_;
        xml_ = "<domain><name>host-runner-x</name><uuid>no-such-uuid-" +
               std::to_string(::getpid()) + "</uuid></domain>";
    }
    ~BackendSessionTest() override {
        machine_.reset();
        session_.reset();
        fake = nullptr;
    }

    BackendSession& session() {
        if (!session_)
            session_.emplace(fake_module, "qemu:///system");
        return *session_;
    }
    void start() {
        ASSERT_TRUE(session().connect());
        instance::MachineHooks hooks;
        hooks.on_answer = [this] {
            words_.emplace_back("answer");
        };
        hooks.on_started = [this] {
            words_.emplace_back("started");
        };
        hooks.on_status = [this](const std::string& status) {
            words_.push_back(status);
        };
        hooks.on_disk_error = [this](bool no_space, const std::string& reason) {
            words_.push_back((no_space ? "full: " : "disk: ") + reason);
        };
        hooks.on_warning = [this](const std::string& text) {
            words_.push_back(text);
        };
        hooks.on_end = [this](const MachineEnd& end) {
            end_ = end;
            machine_.reset();
        };
        machine_ = session().start(*loop_, xml_, std::move(hooks)).value();
    }
    void tell(HostRunnerLibvirtEventKind kind, std::int64_t number = 0, const char* text = "") {
        libvirt_.session.sink(libvirt_.session.context, kind, number, text);
        turn();
    }
    void turn() {
        for (int i = 0; i < 3; ++i)
            ASSERT_TRUE(loop_->run_once(0ms));
    }
    /// As the supervisor would judge it.
    instance::End judged(bool stop_requested = false) {
        EXPECT_TRUE(end_.has_value());
        const auto end = end_.value_or(MachineEnd{});
        instance::EndFacts facts;
        facts.exit = end.exit;
        facts.exit_words = end.exit_words;
        facts.shutdown = end.shutdown;
        facts.panicked = end.panicked;
        facts.panic_message = end.panic_message;
        facts.stderr_text = end.error_text;
        facts.qmp_answered = std::count(words_.begin(), words_.end(), "answer") > 0;
        facts.stop_requested = stop_requested;
        return instance::decide_end(facts);
    }

    FakeLibvirt libvirt_;
    std::unique_ptr<EventLoop> loop_;
    std::string xml_;
    std::optional<BackendSession> session_;
    std::unique_ptr<instance::Machine> machine_;
    std::vector<std::string> words_;
    std::optional<MachineEnd> end_;
};

// --- connecting ---------------------------------------------------------------------------------

TEST_F(BackendSessionTest, says_the_daemons_version) {
    EXPECT_EQ(session().connect().value(), 9'000'000U);
}

TEST_F(BackendSessionTest, says_what_to_install_where_nobody_answers) {
    libvirt_.answer = {host_runner_libvirt_refused, 38,
                       "Failed to connect socket to '/run/libvirt/virtqemud-sock': No such file"};
    const auto error = session().connect().error();
    EXPECT_EQ(error.code, ErrorCode::unavailable);
    EXPECT_THAT(error.message, HasSubstr("virtqemud-sock"));
    EXPECT_THAT(error.hint, HasSubstr("apt install libvirt-daemon-system"));
    EXPECT_THAT(libvirt_.calls, ElementsAre("open qemu:///system", "close"));
}

TEST_F(BackendSessionTest, says_whom_to_join_where_the_socket_is_not_ours) {
    libvirt_.answer = {host_runner_libvirt_refused, 38, "Failed to connect: Permission denied"};
    const auto error = session().connect().error();
    EXPECT_EQ(error.code, ErrorCode::permission_denied);
    EXPECT_THAT(error.hint, HasSubstr("group libvirt"));
}

// --- a VM's life --------------------------------------------------------------------------------

TEST_F(BackendSessionTest, a_guests_poweroff_is_told_by_qemus_own_event) {
    start();
    EXPECT_THAT(libvirt_.calls, ElementsAre("open qemu:///system", "start host-runner-x"));
    tell(host_runner_libvirt_started);
    EXPECT_THAT(words_, ElementsAre("running", "answer", "started"));
    tell(host_runner_libvirt_monitor, 0, R"(SHUTDOWN{"guest":true,"reason":"guest-shutdown"})");
    // libvirt ends QEMU by SIGTERM after a shutdown.
    tell(host_runner_libvirt_monitor, 0, R"(SHUTDOWN{"guest":false,"reason":"host-signal"})");
    tell(host_runner_libvirt_stopped, 0);
    EXPECT_EQ(judged().reason, EndReason::guest_shutdown);
    EXPECT_FALSE(machine_);
}

TEST_F(BackendSessionTest, a_reset_is_no_poweroff) {
    start();
    tell(host_runner_libvirt_started);
    tell(host_runner_libvirt_monitor, 0, R"(SHUTDOWN{"guest":true,"reason":"guest-reset"})");
    tell(host_runner_libvirt_stopped, 0);
    EXPECT_EQ(judged().reason, EndReason::guest_reset);
}

TEST_F(BackendSessionTest, a_panic_comes_with_the_guests_words) {
    start();
    tell(host_runner_libvirt_started);
    tell(host_runner_libvirt_monitor, 0,
         R"(GUEST_PANICKED{"action":"pause","info":{"type":"tdx","message":"bad luck"}})");
    tell(host_runner_libvirt_stopped, 2);
    const auto end = judged();
    EXPECT_EQ(end.reason, EndReason::guest_panic);
    EXPECT_EQ(end.detail, "bad luck");
}

TEST_F(BackendSessionTest, without_qemus_event_libvirts_has_to_do) {
    start();
    tell(host_runner_libvirt_started);
    tell(host_runner_libvirt_stopped, 0);
    EXPECT_EQ(judged().reason, EndReason::guest_shutdown);
}

TEST_F(BackendSessionTest, a_destroy_is_ours_or_somebody_elses) {
    start();
    tell(host_runner_libvirt_started);
    tell(host_runner_libvirt_stopped, 1);
    EXPECT_EQ(judged(true).reason, EndReason::stop_requested);
    const auto end = judged(false);
    EXPECT_EQ(end.reason, EndReason::qemu_died);
    EXPECT_THAT(end.detail, HasSubstr("another process"));
}

TEST_F(BackendSessionTest, a_crash_says_where_qemus_words_are) {
    start();
    tell(host_runner_libvirt_started);
    tell(host_runner_libvirt_stopped, 2);
    const auto end = judged();
    EXPECT_EQ(end.reason, EndReason::qemu_died);
    EXPECT_THAT(end.detail, HasSubstr("libvirt's own log"));
}

TEST_F(BackendSessionTest, a_refused_start_is_explained_by_libvirts_words) {
    start();
    tell(host_runner_libvirt_start_failed, 1,
         "internal error: process exited while connecting to monitor: qemu-system-x86_64: -netdev "
         "user: Could not set up host forwarding rule 'tcp:127.0.0.1:1-:2'");
    const auto end = judged();
    EXPECT_EQ(end.reason, EndReason::qemu_start_failed);
    EXPECT_THAT(end.detail, HasSubstr("forwarding rule"));
    instance::EndFacts facts;
    facts.stderr_text = end_->error_text;
    EXPECT_TRUE(instance::is_port_conflict(facts)) << "another port may be tried";
}

TEST_F(BackendSessionTest, a_full_disk_of_the_host_and_another_fault_are_told_apart) {
    start();
    tell(host_runner_libvirt_started);
    words_.clear();
    tell(host_runner_libvirt_disk_error, 0, "enospc");
    tell(host_runner_libvirt_state, 0, "paused");
    tell(host_runner_libvirt_disk_error, 0, "eio");
    EXPECT_THAT(words_, ElementsAre("full: enospc", "paused", "disk: eio"));
}

// --- the stop ladder ----------------------------------------------------------------------------

TEST_F(BackendSessionTest, each_step_of_the_ladder_is_a_request) {
    start();
    tell(host_runner_libvirt_started);
    for (const auto kind :
         {StopStepKind::system_powerdown, StopStepKind::terminate, StopStepKind::kill})
        machine_->take_step(kind, 1s, [](const Error& error) { ADD_FAILURE() << error.message; });
    libvirt_.calls.erase(libvirt_.calls.begin(), libvirt_.calls.begin() + 2);
    EXPECT_THAT(libvirt_.calls, ElementsAre("request 0", "request 1", "request 2"));
}

TEST_F(BackendSessionTest, a_step_that_libvirt_refuses_is_over) {
    start();
    tell(host_runner_libvirt_started);
    std::string cause;
    machine_->take_step(StopStepKind::system_powerdown, 1s,
                        [&](const Error& error) { cause = error.message; });
    tell(host_runner_libvirt_request_failed, libvirt_.last_number, "not now");
    EXPECT_THAT(cause, HasSubstr("not now"));
}

TEST_F(BackendSessionTest, resume_says_how_it_went) {
    start();
    tell(host_runner_libvirt_started);
    std::vector<bool> results;
    machine_->resume([&](const Result<void>& result) { results.push_back(result.has_value()); });
    tell(host_runner_libvirt_request_done, libvirt_.last_number);
    machine_->resume([&](const Result<void>& result) { results.push_back(result.has_value()); });
    tell(host_runner_libvirt_request_failed, libvirt_.last_number, "no");
    EXPECT_THAT(results, ElementsAre(true, false));
}

// --- a lost connection --------------------------------------------------------------------------

TEST_F(BackendSessionTest, a_lost_connection_is_an_end_that_says_so) {
    start();
    tell(host_runner_libvirt_started);
    tell(host_runner_libvirt_connection_lost, 1);
    const auto end = judged();
    EXPECT_EQ(end.reason, EndReason::qemu_died);
    EXPECT_THAT(end.detail, HasSubstr("the connection to libvirt at qemu:///system was lost (the "
                                      "daemon has ended)"));
}

TEST_F(BackendSessionTest, a_lost_connection_leaves_no_qemu_behind) {
    // A stand-in whose command line names the UUID as libvirt's QEMU does.
    const auto domain = domain_identity(xml_).value();
    const pid_t qemu = ::fork();
    if (qemu == 0) {
        // More than one command, or the shell would become the first one.
        ::execlp("sh", "sh", "-c", "sleep 60; exit 1", "-uuid", domain.uuid.c_str(), nullptr);
        ::_exit(1);
    }
    for (int i = 0; i < 1'000 && find_qemu(domain.uuid) != qemu; ++i)
        std::this_thread::sleep_for(1ms);
    start();
    tell(host_runner_libvirt_started);
    EXPECT_EQ(machine_->pid(), qemu);
    tell(host_runner_libvirt_connection_lost, 1);
    int status = 0;
    ASSERT_EQ(::waitpid(qemu, &status, 0), qemu);
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    for (int i = 0; i < 100 && !end_; ++i)
        ASSERT_TRUE(loop_->run_once(100ms));
    EXPECT_THAT(judged().detail, HasSubstr("its QEMU was killed"));
}

TEST_F(BackendSessionTest, the_next_start_connects_anew) {
    start();
    tell(host_runner_libvirt_started);
    tell(host_runner_libvirt_connection_lost, 0);
    start();
    EXPECT_EQ(std::count(libvirt_.calls.begin(), libvirt_.calls.end(), "open qemu:///system"), 2);
}

TEST_F(BackendSessionTest, a_machine_that_is_destroyed_takes_the_connection_with_it) {
    start();
    tell(host_runner_libvirt_started);
    machine_.reset();
    EXPECT_EQ(libvirt_.calls.back(), "close") << "the domain ends with it";
    EXPECT_FALSE(end_);
}

// --- finding QEMU -------------------------------------------------------------------------------

TEST(FindQemu, by_the_uuid_on_its_command_line) {
    const tests::TemporaryDirectory proc;
    const auto process = [&](const std::string& pid, std::string line) {
        ASSERT_TRUE(make_directories(proc / pid));
        std::replace(line.begin(), line.end(), ' ', '\0');
        ASSERT_TRUE(write_file_atomic(proc / (pid + "/cmdline"), line));
    };
    process("12", "qemu -uuid aaaa -smp ");
    process("14", "qemu -uuid bbbb -smp ");
    process("15", "grep cccc ");
    process("self", "qemu -uuid cccc ");
    EXPECT_EQ(find_qemu("bbbb", proc.path()), 14);
    EXPECT_EQ(find_qemu("bbb", proc.path()), 0);
    EXPECT_EQ(find_qemu("cccc", proc.path()), 0);
}

} // namespace
} // namespace host_runner::libvirt

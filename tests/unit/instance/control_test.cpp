// SPDX-License-Identifier: Apache-2.0
#include "host_runner/instance/control.hpp"

#include <thread>

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "fakes/temporary_directory.hpp"
#include "host_runner/base/files.hpp"
#include "host_runner/instance/control_server.hpp"

namespace host_runner::instance {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::HasSubstr;

LiveStatus make_status() {
    LiveStatus status;
    status.phase = "ready";
    status.runner_pid = 10;
    status.qemu_pid = 11;
    status.uptime_ms = 12;
    return status;
}

StopStep make_step(const std::string& text, bool done = false) {
    StopStep step;
    step.text = text;
    step.limit_ms = 5;
    step.done = done;
    return step;
}

/// A deadline that must not pass, also on a machine that is busy with other things.
constexpr auto patience = 60s;

/// A server whose loop runs on a thread of its own, as a runner's does in another process.
class Control : public testing::Test {
protected:
    void serve(ControlServer::Limits limits = {}) {
        loop_ = EventLoop::create().value();
        server_ = ControlServer::listen(*loop_, socket_,
                                        {.status = [this] { return status_; },
                                         .services =
                                             [this](auto done) {
                                                 services_asked_ = std::move(done);
                                                 if (services_)
                                                     services_asked_(*services_);
                                             },
                                         .stop =
                                             [this](const StopRequest& request, auto on_step) {
                                                 stop_request_ = request;
                                                 on_step_ = std::move(on_step);
                                                 if (on_stop_)
                                                     on_stop_();
                                             }},
                                        limits)
                      .value();
        thread_ = std::thread([this] { EXPECT_TRUE(loop_->run()); });
    }

    void TearDown() override {
        end_server();
    }

    void end_server() {
        if (!thread_.joinable())
            return;
        loop_->post([this] {
            server_.reset();
            loop_->stop();
        });
        thread_.join();
    }

    [[nodiscard]] UniqueFd connect() const {
        UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        socket_.copy(address.sun_path, sizeof address.sun_path - 1);
        EXPECT_EQ(::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
        return fd;
    }

    /// All that comes back for these bytes, until the server closes.
    [[nodiscard]] std::string ask(const std::string& bytes) const {
        const auto fd = connect();
        EXPECT_EQ(::send(fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL),
                  static_cast<ssize_t>(bytes.size()));
        return read_all(fd.get(), 1 << 20).value_or("");
    }

    const tests::TemporaryDirectory dir_;
    const std::string socket_ = dir_ / "control.sock";
    const std::string lock_ = dir_ / "lock";
    UniqueFd held_; ///< The lock of the runner that the server plays; given back on its thread.
    LiveStatus status_ = make_status();
    std::optional<Result<std::string>> services_; ///< nullopt: the guest does not answer.
    std::function<void(const Result<std::string>&)> services_asked_;
    std::optional<StopRequest> stop_request_;
    std::function<void(const StopStep&)> on_step_;
    std::function<void()> on_stop_;
    std::unique_ptr<EventLoop> loop_;
    std::unique_ptr<ControlServer> server_;
    std::thread thread_;
};

TEST_F(Control, status_comes_back_as_the_runner_gave_it) {
    status_.last_progress = "starting \"web\"\n\xc3\xa9";
    status_.guest_info_json = R"({"version":"1"})";
    status_.restarts = 3;
    serve();
    const auto answer = ask_status(socket_, patience);
    ASSERT_TRUE(answer) << answer.error().describe();
    EXPECT_EQ(encode_live_status(*answer), encode_live_status(status_));
    EXPECT_EQ(answer->guest_info_json, status_.guest_info_json);
}

TEST_F(Control, a_large_status_comes_back_whole) {
    // More than a socket takes at once.
    status_.services_json = std::string(400'000, 'x');
    serve({.max_clients = 16, .request_deadline = patience});
    EXPECT_EQ(ask_status(socket_, patience)->services_json.size(), 400'000U);
}

TEST_F(Control, services_come_as_the_guest_sent_them) {
    services_ = R"({"services":[]})";
    serve();
    const auto answer = ask_services(socket_, patience);
    ASSERT_TRUE(answer) << answer.error().describe();
    EXPECT_EQ(*answer, R"({"services":[]})");
}

TEST_F(Control, services_of_a_guest_that_cannot_be_asked_are_refused_with_the_reason) {
    services_ = fail(ErrorCode::unavailable, "The guest cannot be asked");
    serve();
    const auto answer = ask_services(socket_, patience);
    ASSERT_FALSE(answer);
    EXPECT_EQ(answer.error().code, ErrorCode::wrong_state);
    EXPECT_THAT(answer.error().message, HasSubstr("The guest cannot be asked"));
}

TEST_F(Control, services_of_a_guest_that_hangs_are_unavailable) {
    serve();
    const auto hasty = ask_services(socket_, 20ms);
    ASSERT_FALSE(hasty);
    EXPECT_EQ(hasty.error().code, ErrorCode::unavailable);
    end_server();
    services_asked_(std::string("late")); // nobody is there: nothing happens
}

TEST_F(Control, services_are_not_waited_for_longer_than_the_limit) {
    ControlServer::Limits limits;
    limits.services_deadline = 20ms;
    serve(limits);
    const auto answer = ask_services(socket_, patience);
    ASSERT_FALSE(answer);
    EXPECT_THAT(answer.error().message, HasSubstr("without an answer"));
}

TEST_F(Control, services_without_a_runner_are_unavailable) {
    const auto answer = ask_services(socket_, patience);
    ASSERT_FALSE(answer);
    EXPECT_EQ(answer.error().code, ErrorCode::unavailable);
}

TEST_F(Control, status_without_a_runner_is_unavailable) {
    const auto answer = ask_status(socket_, patience);
    ASSERT_FALSE(answer);
    EXPECT_EQ(answer.error().code, ErrorCode::unavailable);
}

TEST_F(Control, status_of_a_runner_that_hangs_is_unavailable_after_the_deadline) {
    UniqueFd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    socket_.copy(address.sun_path, sizeof address.sun_path - 1);
    ASSERT_EQ(::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    ASSERT_EQ(::listen(listener.get(), 1), 0);
    const auto answer = ask_status(socket_, 20ms);
    ASSERT_FALSE(answer);
    EXPECT_EQ(answer.error().code, ErrorCode::unavailable);
    EXPECT_THAT(answer.error().message, HasSubstr("within 20 ms"));
}

TEST_F(Control, many_are_asked_side_by_side_and_answer_in_order) {
    serve();
    const auto answers = ask_statuses({socket_, dir_ / "none", socket_}, patience);
    ASSERT_EQ(answers.size(), 3U);
    EXPECT_TRUE(answers[0]);
    EXPECT_FALSE(answers[1]);
    EXPECT_TRUE(answers[2]);
}

TEST_F(Control, the_socket_is_for_the_owner_only_whatever_the_umask) {
    const mode_t old_mask = ::umask(0);
    serve();
    ::umask(old_mask);
    struct stat status {};
    ASSERT_EQ(::stat(socket_.c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777U, 0600U);
}

TEST_F(Control, a_socket_left_by_a_killed_runner_is_replaced) {
    ASSERT_TRUE(write_file_atomic(socket_, "old"));
    serve();
    EXPECT_TRUE(ask_status(socket_, patience));
}

TEST_F(Control, the_socket_goes_with_the_server) {
    serve();
    end_server();
    EXPECT_FALSE(path_exists(socket_));
}

TEST_F(Control, a_path_too_long_for_a_socket_is_refused_with_a_remedy) {
    const auto loop = EventLoop::create().value();
    const auto server = ControlServer::listen(*loop, dir_ / std::string(108, 'x'), {});
    ASSERT_FALSE(server);
    EXPECT_EQ(server.error().code, ErrorCode::invalid_argument);
    EXPECT_THAT(server.error().hint, HasSubstr("HOST_RUNNER_HOME"));
}

TEST_F(Control, an_unknown_command_gets_an_error) {
    serve();
    EXPECT_THAT(ask("{\"command\":\"dance\"}\n"), HasSubstr("Unknown command 'dance'"));
}

TEST_F(Control, a_line_that_is_no_json_gets_an_error) {
    serve();
    EXPECT_THAT(ask("hello\n"), HasSubstr("\"error\""));
}

TEST_F(Control, a_request_above_4_kib_gets_an_error) {
    serve();
    EXPECT_THAT(ask(std::string(4096, 'x')), HasSubstr("too long"));
}

TEST_F(Control, a_client_that_says_nothing_is_dropped) {
    serve({.max_clients = 16, .request_deadline = 20ms});
    const auto fd = connect();
    EXPECT_EQ(read_all(fd.get(), 100).value(), "");
}

TEST_F(Control, clients_above_the_limit_wait_for_their_turn) {
    serve({.max_clients = 1, .request_deadline = 20ms});
    const auto silent = connect();
    EXPECT_TRUE(ask_status(socket_, patience));
}

TEST_F(Control, stop_of_an_instance_that_does_not_run_succeeds) {
    EXPECT_TRUE(request_stop(socket_, lock_, {}, {}));
}

TEST_F(Control, stop_hands_over_its_request_and_shows_each_step_until_the_lock_is_free) {
    held_ = try_lock_file(lock_).value();
    on_stop_ = [&] {
        on_step_(make_step("guest API Shutdown"));
        on_step_(make_step("QMP quit"));
        on_step_(make_step("stopped", true));
        held_.reset();
    };
    serve();
    std::vector<std::string> steps;
    const auto stopped = request_stop(socket_, lock_, {.timeout = 9s, .force = true},
                                      [&](const StopStep& step) { steps.push_back(step.text); });
    ASSERT_TRUE(stopped) << stopped.error().describe();
    EXPECT_THAT(steps, ElementsAre("guest API Shutdown", "QMP quit", "stopped"));
    EXPECT_EQ(stop_request_->timeout, 9s);
    EXPECT_TRUE(stop_request_->force);
}

TEST_F(Control, stop_succeeds_when_the_runner_is_killed_instead) {
    held_ = try_lock_file(lock_).value();
    on_stop_ = [&] {
        loop_->post([&] {
            server_.reset();
            held_.reset();
        });
    };
    serve();
    EXPECT_TRUE(request_stop(socket_, lock_, {}, {}));
}

TEST_F(Control, stop_waits_for_the_socket_of_a_runner_that_only_begins) {
    held_ = try_lock_file(lock_).value();
    on_stop_ = [&] {
        on_step_(make_step("stopped", true));
        held_.reset();
    };
    std::thread later([&] { serve(); });
    const auto stopped = request_stop(socket_, lock_, {}, {});
    later.join();
    EXPECT_TRUE(stopped);
}

TEST_F(Control, steps_that_come_when_the_client_has_gone_are_dropped) {
    serve();
    std::thread ends([&] {
        // A client that leaves after its request.
        const auto fd = connect();
        const std::string line = "{\"command\":\"stop\"}\n";
        ASSERT_EQ(::send(fd.get(), line.data(), line.size(), 0), static_cast<ssize_t>(line.size()));
    });
    ends.join();
    while (true) { // answered after the stop request, which came first
        if (ask_status(socket_, patience) && on_step_)
            break;
    }
    loop_->post([&] { on_step_(make_step("late", true)); });
    EXPECT_TRUE(ask_status(socket_, patience));
}

TEST_F(Control, steps_that_come_when_the_server_has_gone_are_dropped) {
    serve();
    const auto fd = connect();
    const std::string line = "{\"command\":\"stop\"}\n";
    ASSERT_EQ(::send(fd.get(), line.data(), line.size(), 0), static_cast<ssize_t>(line.size()));
    ASSERT_TRUE(ask_status(socket_, patience));
    end_server();
    ASSERT_TRUE(on_step_);
    on_step_(make_step("late", true));
    EXPECT_EQ(read_all(fd.get(), 100).value(), "");
}

} // namespace
} // namespace host_runner::instance

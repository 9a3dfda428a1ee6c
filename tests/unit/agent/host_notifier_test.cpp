// SPDX-License-Identifier: Apache-2.0
#include "host_runner/agent/host_notifier.hpp"

#include <array>
#include <mutex>
#include <thread>
#include <vector>

#include <sys/socket.h>

#include <gmock/gmock.h>

#include "host_runner/net/http_server.hpp"

namespace host_runner::agent {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::HasSubstr;

/// A runner that answers each connection with `status` and keeps what it was told.
class FakeRunner {
public:
    explicit FakeRunner(int status)
        : server_(
              [this, status](const net::HttpRequest& request) {
                  const std::lock_guard lock(mutex_);
                  if (const auto event = protocol::decode_event(request.body))
                      events_.push_back(event->name + "=" + event->payload);
                  return net::HttpResponse{status, "application/json", "null"};
              },
              {}) {}
    ~FakeRunner() {
        server_.interrupt();
        for (auto& thread : threads_)
            thread.join();
    }
    net::Connector connector() {
        return [this]() -> Result<UniqueFd> {
            std::array<int, 2> fds{};
            if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds.data()) != 0)
                return fail_errno("Cannot make sockets", errno);
            threads_.emplace_back([this, fd = fds[1]] {
                const UniqueFd owned(fd);
                server_.serve(fd);
            });
            return UniqueFd(fds[0]);
        };
    }
    std::vector<std::string> events() {
        const std::lock_guard lock(mutex_);
        return events_;
    }

private:
    net::HttpServer server_;
    std::vector<std::thread> threads_;
    std::mutex mutex_;
    std::vector<std::string> events_;
};

TEST(HostNotifier, tells_the_runner_in_order) {
    FakeRunner runner(200);
    HostNotifier notifier(runner.connector(), [](std::string_view) {});
    notifier.notify("boot.progress", "one");
    notifier.notify("boot.progress", "two");
    ASSERT_TRUE(notifier.flush(30s));
    EXPECT_THAT(runner.events(), ElementsAre("boot.progress=one", "boot.progress=two"));
}

TEST(HostNotifier, cuts_the_payload_to_what_the_runner_accepts) {
    FakeRunner runner(200);
    HostNotifier notifier(runner.connector(), [](std::string_view) {});
    notifier.notify("boot.error", std::string(2 * protocol::max_event_payload_bytes, 'x'));
    ASSERT_TRUE(notifier.flush(30s));
    ASSERT_EQ(runner.events().size(), 1U);
    EXPECT_EQ(runner.events()[0].size(),
              std::string("boot.error=").size() + protocol::max_event_payload_bytes);
}

TEST(HostNotifier, gives_up_after_three_tries_and_says_so) {
    FakeRunner runner(500);
    std::vector<std::string> said;
    {
        HostNotifier notifier(runner.connector(),
                              [&](std::string_view text) { said.emplace_back(text); });
        notifier.notify("boot.progress", "lost");
        ASSERT_TRUE(notifier.flush(30s));
    }
    EXPECT_EQ(runner.events().size(), 3U);
    EXPECT_THAT(said, ElementsAre(HasSubstr("status 500")));
}

TEST(HostNotifier, holds_nobody_up_while_there_is_no_runner) {
    std::vector<std::string> said;
    {
        HostNotifier notifier(
            []() -> Result<UniqueFd> { return fail(ErrorCode::unavailable, "nobody there"); },
            [&](std::string_view text) { said.emplace_back(text); });
        notifier.notify("boot.progress", "lost");
        EXPECT_FALSE(notifier.flush(1ms));
    } // its end does not wait for the tries that are left
    EXPECT_THAT(said, testing::Each(HasSubstr("nobody there")));
}

} // namespace
} // namespace host_runner::agent

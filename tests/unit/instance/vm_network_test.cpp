// SPDX-License-Identifier: Apache-2.0
#include "host_runner/instance/vm_network.hpp"

#include <cerrno>
#include <chrono>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <signal.h>
#include <sys/socket.h>

namespace host_runner::instance {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using namespace std::chrono_literals;

/// A kernel without bridges.
class NoTaps final : public host::TapMaker {
public:
    int open_device(UniqueFd& /*device*/) override {
        return ENOENT;
    }
    int make_tap(int /*device*/, const std::string& /*name*/) override {
        return EPERM;
    }
    int add_to_bridge(const std::string& /*bridge*/, const std::string& /*name*/) override {
        return EPERM;
    }
    int set_up(const std::string& /*name*/) override {
        return EPERM;
    }
    bool interface_exists(const std::string& /*name*/) override {
        return false;
    }
    bool is_bridge(const std::string& /*name*/) override {
        return false;
    }
};

/// Notes what it starts.
class NotingLauncher final : public ProcessLauncher {
public:
    Result<ChildProcess> launch(const ProcessSpec& spec) override {
        argv = spec.argv;
        auto child = real_.launch(spec);
        if (child)
            pid = child->pid;
        return child;
    }
    std::vector<std::string> argv;
    pid_t pid = -1;

private:
    ForkExecLauncher real_;
};

class VmNetworkTest : public testing::Test {
public:
    [[nodiscard]] Result<void> begin(usernet::Backend backend,
                                     const std::vector<std::uint16_t>& services = {}) {
        return network.begin(plan, backend, programs, services);
    }
    void run_until_told() {
        const auto deadline = std::chrono::steady_clock::now() + 10s;
        while (lost.empty() && std::chrono::steady_clock::now() < deadline)
            ASSERT_TRUE(loop->run_once(100ms));
    }

    std::unique_ptr<EventLoop> loop = EventLoop::create().value();
    NotingLauncher launcher;
    NoTaps taps;
    std::vector<std::string> lost;
    VmNetwork network{*loop, launcher, taps, [this](std::string line) {
                          lost.push_back(std::move(line));
                      }};
    qemu::LaunchPlan plan;
    usernet::Programs programs{USER_NETWORK, {}, {}};
};

TEST_F(VmNetworkTest, is_nothing_where_qemu_makes_it) {
    for (const auto backend : {usernet::Backend::none, usernet::Backend::qemu}) {
        ASSERT_TRUE(begin(backend));
        const auto fd = network.finish();
        ASSERT_TRUE(fd);
        EXPECT_FALSE(*fd);
    }
    EXPECT_EQ(launcher.pid, -1);
}

TEST_F(VmNetworkTest, is_a_socket_to_a_program_that_knows_the_plan) {
    plan.egress = true;
    plan.ports.clear();
    ASSERT_TRUE(begin(usernet::Backend::slirp, {5432}));
    const auto fd = network.finish();
    ASSERT_TRUE(fd) << fd.error().describe();
    EXPECT_TRUE(*fd);
    EXPECT_THAT(launcher.argv, testing::Contains("--egress"));
    EXPECT_THAT(launcher.argv, testing::IsSupersetOf({"--host-service", "5432"}));
}

TEST_F(VmNetworkTest, tells_of_a_program_that_was_killed) {
    ASSERT_TRUE(begin(usernet::Backend::slirp));
    const auto fd = network.finish();
    ASSERT_TRUE(fd);
    ASSERT_EQ(::kill(launcher.pid, SIGKILL), 0);
    run_until_told();
    ASSERT_THAT(lost, ElementsAre(HasSubstr("no network any more")));
    EXPECT_THAT(lost.front(), HasSubstr("signal 9"));
}

TEST_F(VmNetworkTest, says_nothing_when_it_ends_with_qemu) {
    ASSERT_TRUE(begin(usernet::Backend::slirp));
    ASSERT_TRUE(network.finish()); // and closed, as by QEMU's end
    const auto deadline = std::chrono::steady_clock::now() + 10s;
    while (::kill(launcher.pid, 0) == 0 && std::chrono::steady_clock::now() < deadline)
        ASSERT_TRUE(loop->run_once(100ms));
    EXPECT_NE(::kill(launcher.pid, 0), 0) << "reaped";
    EXPECT_THAT(lost, IsEmpty());
}

TEST_F(VmNetworkTest, ends_the_last_one_before_the_next) {
    ASSERT_TRUE(begin(usernet::Backend::slirp));
    const auto first = network.finish();
    ASSERT_TRUE(first);
    const auto first_pid = launcher.pid;
    ASSERT_TRUE(begin(usernet::Backend::slirp));
    EXPECT_NE(::kill(first_pid, 0), 0);
    ASSERT_TRUE(network.finish());
    const auto second_pid = launcher.pid;
    network.end();
    EXPECT_NE(::kill(second_pid, 0), 0);
    EXPECT_THAT(lost, IsEmpty());
}

TEST_F(VmNetworkTest, passes_on_why_there_is_none) {
    programs.user_network = "/nonexistent/user_network";
    EXPECT_FALSE(begin(usernet::Backend::slirp));
    plan.network = {spec::NetworkMode::bridge, "br0"};
    const auto joined = begin(usernet::Backend::bridge);
    ASSERT_FALSE(joined);
    EXPECT_EQ(joined.error().code, ErrorCode::not_found);
}

} // namespace
} // namespace host_runner::instance

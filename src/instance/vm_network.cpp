// SPDX-License-Identifier: Apache-2.0
#include "host_runner/instance/vm_network.hpp"

#include <utility>

#include <sys/epoll.h>

#include <fmt/format.h>

#include "host_runner/base/log.hpp"
#include "host_runner/usernet/passt.hpp"

namespace host_runner::instance {

namespace {

/// The program is started some 20 ms before and needs 3.
constexpr std::chrono::seconds ready_timeout{10};

} // namespace

VmNetwork::VmNetwork(EventLoop& loop, ProcessLauncher& launcher, host::TapMaker& taps,
                     std::function<void(std::string)> on_lost)
    : loop_(loop), launcher_(launcher), taps_(taps), on_lost_(std::move(on_lost)) {}

VmNetwork::~VmNetwork() {
    end();
}

Result<void> VmNetwork::begin(const qemu::LaunchPlan& plan, usernet::Backend backend,
                              const usernet::Programs& programs,
                              const std::vector<std::uint16_t>& host_services) {
    end();
    const auto start = [this](const usernet::NetworkCommand& command) -> Result<void> {
        HR_TRY(auto program, usernet::NetworkProcess::start(launcher_, command));
        program_ = std::make_unique<usernet::NetworkProcess>(std::move(program));
        return {};
    };
    switch (backend) {
    case usernet::Backend::none:
    case usernet::Backend::qemu:
        return {};
    case usernet::Backend::slirp:
        return start(usernet::user_network_command(
            programs.user_network, {plan.egress, host_services, plan.ports, std::nullopt}));
    case usernet::Backend::passt:
        return start(usernet::passt_command(programs.passt, plan.ports));
    case usernet::Backend::bridge: {
        HR_TRY(tap_, host::open_tap(taps_, plan.network.bridge, host::tap_name(plan.instance_id)));
        return {};
    }
    }
    return {};
}

Result<UniqueFd> VmNetwork::finish() {
    if (!program_)
        return std::move(tap_);
    auto socket = program_->wait_ready(ready_timeout);
    if (!socket) {
        end();
        return socket;
    }
    HR_CHECK(watch());
    return socket;
}

Result<void> VmNetwork::watch() {
    HR_CHECK(loop_.watch(program_->pidfd(), EPOLLIN, [this](std::uint32_t) { on_program_end(); }));
    return loop_.watch(program_->output(), EPOLLIN, [this](std::uint32_t) {
        if (!program_->drain_output())
            loop_.unwatch(program_->output());
    });
}

void VmNetwork::on_program_end() {
    loop_.unwatch(program_->pidfd());
    loop_.unwatch(program_->output());
    const auto status = program_->reap();
    program_.reset();
    // Both end so when QEMU has gone, which may be seen before QEMU's own end.
    if (status && status->exited && status->code == 0)
        return log::debug("The VM's network has ended with QEMU");
    on_lost_(fmt::format("The VM has no network any more: the program that makes it ended ({}). "
                         "Its connections and forwarded ports are gone until it is started anew",
                         status ? status->describe() : status.error().describe()));
}

void VmNetwork::end() {
    tap_.reset();
    if (!program_)
        return;
    loop_.unwatch(program_->pidfd());
    loop_.unwatch(program_->output());
    program_.reset();
}

} // namespace host_runner::instance

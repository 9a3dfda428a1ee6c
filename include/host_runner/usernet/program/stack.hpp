// SPDX-License-Identifier: Apache-2.0
#pragma once

/// One guest's network, of libslirp: the addresses that QEMU's own user network has (the host
/// 10.0.2.2, DNS 10.0.2.3, DHCP from 10.0.2.10 on), and with egress IPv6 as there.
///
///     HR_TRY(auto stack, Stack::create(settings, queue)); // guard_sockets() came first
///     stack->input(frame);
///     write(queue.front());                            // frames for the guest
///
/// One thread, one at a time in a process: libslirp reports errors by errno.

#include <chrono>
#include <memory>
#include <string_view>
#include <vector>

#include <poll.h>

#include "host_runner/base/error.hpp"
#include "host_runner/usernet/program/frame_stream.hpp"
#include "host_runner/usernet/settings.hpp"

namespace host_runner::usernet::program {

class Stack {
public:
    /// @errors already_exists: a host port cannot be bound; the message is its mapping, sys_errno
    ///         says why; internal
    [[nodiscard]] static Result<std::unique_ptr<Stack>> create(const Settings& settings,
                                                               FrameQueue& to_guest);
    Stack(const Stack&) = delete;
    Stack& operator=(const Stack&) = delete;
    ~Stack();

    /// A frame from the guest.
    void input(std::string_view frame);

    /// Appends what is to be polled. @return the longest that poll may wait; negative: for ever
    [[nodiscard]] std::chrono::milliseconds prepare(std::vector<pollfd>& descriptors);
    /// After poll() of the same list. @param failed  poll() gave an error
    void handle(const std::vector<pollfd>& descriptors, bool failed);

private:
    struct Impl;
    explicit Stack(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

} // namespace host_runner::usernet::program

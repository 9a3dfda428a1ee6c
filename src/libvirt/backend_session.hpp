// SPDX-License-Identifier: Apache-2.0
#pragma once

/// A connection to libvirt's daemon as the event loop sees it: what libvirt.so tells on its threads
/// is brought to the loop's, and becomes the hooks of an instance::Machine. Tests hand it a module
/// of their own.

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>

#include "host_runner/base/error.hpp"
#include "host_runner/base/event_loop.hpp"
#include "host_runner/instance/machine.hpp"
#include "host_runner/libvirt/domain_xml.hpp"
#include "module.hpp"

namespace host_runner::libvirt {

class LibvirtMachine;

struct SessionEvent {
    HostRunnerLibvirtEventKind kind;
    std::int64_t number;
    std::string text;
};

class BackendSession {
public:
    BackendSession(const HostRunnerLibvirtModule& module, std::string uri);
    BackendSession(const BackendSession&) = delete;
    BackendSession& operator=(const BackendSession&) = delete;
    ~BackendSession(); ///< Ends the connection, and with it what still runs.

    /// Blocks, at most 10 s. @return the daemon's version
    /// @errors unavailable, permission_denied, timeout
    [[nodiscard]] Result<Version> connect();

    /// One machine at a time. Connects anew where the connection was lost.
    /// @param xml as of build_domain_xml()
    [[nodiscard]] Result<std::unique_ptr<instance::Machine>>
    start(EventLoop& loop, const std::string& xml, instance::MachineHooks hooks);

private:
    friend class LibvirtMachine;

    static void on_event(void* context, HostRunnerLibvirtEventKind kind, std::int64_t number,
                         const char* text);
    void deliver();
    void forget_events();
    void close(std::uint32_t wait_ms);
    void attach(EventLoop* loop, LibvirtMachine* machine);

    const HostRunnerLibvirtModule& module_;
    const std::string uri_;
    HostRunnerLibvirtSession* session_ = nullptr;
    bool lost_ = true;
    LibvirtMachine* machine_ = nullptr;
    /// For what is posted: the loop may outlive us.
    std::shared_ptr<BackendSession*> self_ = std::make_shared<BackendSession*>(this);

    std::mutex mutex_; // guards all below
    std::condition_variable arrived_;
    std::deque<SessionEvent> events_;
    EventLoop* loop_ = nullptr; ///< nullptr: connect() waits for events itself.
};

/// The one process whose command line names this domain's UUID. @param proc where processes are
/// @return 0: none that this user can see
[[nodiscard]] pid_t find_qemu(const std::string& uuid, const std::string& proc = "/proc");

} // namespace host_runner::libvirt

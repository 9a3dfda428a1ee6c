// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Between the libvirt module of the program and lib/host-runner/libvirt.so, which alone is linked
/// with libvirt: it and the libraries behind it would cost every `run` 13 MiB and 20 ms.
///
/// libvirt's calls block, some of them for half a minute, and its events come on a thread that runs
/// its event loop. So a session has two threads of its own: one runs libvirt's event loop, the
/// other takes the requests in their order. All that comes back comes as events.

#include <cstdint>

extern "C" {

enum HostRunnerLibvirtEventKind {
    host_runner_libvirt_connected = 0,   ///< number = the daemon's libvirt version
    host_runner_libvirt_refused,         ///< The connection failed. number = virErrorNumber
    host_runner_libvirt_started,         ///< The domain runs.
    host_runner_libvirt_start_failed,    ///< number = virErrorNumber
    host_runner_libvirt_stopped,         ///< number = virDomainEventStoppedDetailType
    host_runner_libvirt_state,           ///< text = "running" or "paused"
    host_runner_libvirt_disk_error,      ///< text = the reason: "enospc", or another
    host_runner_libvirt_monitor,         ///< text = NAME{JSON}, e.g. SHUTDOWN{"guest":true}
    host_runner_libvirt_request_done,    ///< number = the request's
    host_runner_libvirt_request_failed,  ///< number = the request's
    host_runner_libvirt_connection_lost, ///< number = virConnectCloseReason
};

/// On either of the session's threads; `text` is borrowed and never a null pointer.
using HostRunnerLibvirtSink = void (*)(void* context, HostRunnerLibvirtEventKind kind,
                                       std::int64_t number, const char* text);

enum HostRunnerLibvirtRequest {
    host_runner_libvirt_power_button = 0,
    host_runner_libvirt_terminate, ///< SIGTERM, and the daemon waits for the end
    host_runner_libvirt_kill,      ///< The same, then SIGKILL
    host_runner_libvirt_resume,
};

struct HostRunnerLibvirtSession;

/// What libvirt.so gives: `const HostRunnerLibvirtModule* host_runner_libvirt_module()`
struct HostRunnerLibvirtModule {
    std::uint32_t abi;             ///< host_runner_libvirt_abi
    std::uint64_t library_version; ///< Of libvirt, as this process has it.

    /// Starts the threads and begins to connect: `connected` or `refused` follows.
    /// @return nullptr: no thread or no memory could be had
    HostRunnerLibvirtSession* (*open)(const char* uri, HostRunnerLibvirtSink sink, void* context);
    /// Starts a transient domain that ends with this connection: `started` or `start_failed`
    /// follows; `stopped`, once, if it was started.
    void (*start)(HostRunnerLibvirtSession* session, const char* name, const char* xml);
    void (*request)(HostRunnerLibvirtSession* session, HostRunnerLibvirtRequest request,
                    std::int64_t number);
    /// Ends what runs and the connection. No event comes any more once it has returned; it waits
    /// at most `wait_ms` for the session's threads, and leaves those that hang to themselves.
    void (*close)(HostRunnerLibvirtSession* session, std::uint32_t wait_ms);
};

using HostRunnerLibvirtModuleFunction = const HostRunnerLibvirtModule* (*)();
}

inline constexpr std::uint32_t host_runner_libvirt_abi = 1;
inline constexpr const char* host_runner_libvirt_symbol = "host_runner_libvirt_module";

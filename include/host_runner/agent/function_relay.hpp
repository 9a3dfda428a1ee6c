// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Between those who call functions and the workers that run them: passes frames on, and answers
/// for workers that are not there. It looks into no payload but the requests'. What it keeps is
/// bounded by the room that both sides give each other.
///
///     FunctionRelay relay(loop, logs);
///     relay.set_functions({"greet"});
///     HR_CHECK(relay.serve_port("/dev/vport1p5"));   // each port is one session at a time
///     ...
///     relay.attach("greet", "greet-1", std::move(channel));   // a worker runs
///     relay.detach("greet-1");                                 // it has ended
///
/// All on the loop's thread. Frames: protocol/invocation.hpp, docs/protocols.md.

#include <memory>
#include <string>
#include <vector>

#include "host_runner/agent/log_store.hpp"
#include "host_runner/base/error.hpp"
#include "host_runner/base/event_loop.hpp"
#include "host_runner/base/unique_fd.hpp"

namespace host_runner::agent {

class FunctionRelay {
public:
    /// Calls of one session at a time; what is above is answered `overloaded`.
    static constexpr std::size_t max_calls = 256;

    /// Both are borrowed.
    FunctionRelay(EventLoop& loop, LogStore& logs);
    FunctionRelay(const FunctionRelay&) = delete;
    FunctionRelay& operator=(const FunctionRelay&) = delete;
    ~FunctionRelay();

    /// The services of the world `function`, whether they run or not.
    void set_functions(std::vector<std::string> names);

    /// From now on this worker gets calls of `function`: of several the one that has the fewest.
    /// @param worker a name that no other worker has at the moment
    /// @param channel SOCK_SEQPACKET; the worker has the other end
    void attach(const std::string& function, const std::string& worker, UniqueFd channel);
    /// The worker has ended: what it still said is passed on, its other calls are `lost`.
    void detach(const std::string& worker);

    /// Serves a character device of virtio-serial for ever.
    /// @errors io_error, not_found
    [[nodiscard]] Result<void> serve_port(const std::string& device);
    /// Serves a connected stream socket until its end.
    [[nodiscard]] Result<void> serve_connection(UniqueFd socket);

private:
    struct Session;
    struct Worker;
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

} // namespace host_runner::agent

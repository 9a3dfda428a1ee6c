// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Starts the services in dependency order, watches, restarts and stops them. One event loop, no
/// threads; real children in tests too.

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "host_runner/agent/cgroups.hpp"
#include "host_runner/agent/log_store.hpp"
#include "host_runner/agent/service_launch.hpp"
#include "host_runner/base/error.hpp"
#include "host_runner/base/event_loop.hpp"
#include "host_runner/base/process.hpp"
#include "host_runner/protocol/app_compose.hpp"
#include "host_runner/protocol/guest_api.hpp"
#include "host_runner/wasm/worker/counters.hpp"

namespace host_runner::agent {

/// The delay before each restart: doubles, and starts anew once the service ran for a while.
/// Source of the figures: moby libcontainerd restartmanager (100 ms, 1 min, 10 s)
class RestartDelay {
public:
    struct Times {
        std::chrono::milliseconds first{100};
        std::chrono::milliseconds longest{60'000};
        std::chrono::milliseconds reset_after{10'000};
    };
    RestartDelay() : RestartDelay(Times{}) {}
    explicit RestartDelay(Times times) : times_(times), next_(times.first) {}
    /// After a run that lasted `uptime`.
    [[nodiscard]] std::chrono::milliseconds after(std::chrono::milliseconds uptime);

private:
    Times times_;
    std::chrono::milliseconds next_;
};

/// A service and what the agent worked out for it.
struct PreparedService {
    protocol::AppService service;
    LaunchRequest launch;                 ///< Without cgroup and report_fd.
    std::vector<std::string> environment; ///< "NAME=value", the whole.
    bool check_has_mounts = true;         ///< A health check sees the service's mounts too.
};

class ServiceSupervisor {
public:
    struct Options {
        std::string agent_program;      ///< Runs `launch`; a path.
        std::optional<Cgroups> cgroups; ///< nullopt: none here; a service with limits then fails.
        RestartDelay::Times restart_times;
    };
    /// All on the loop's thread.
    struct Callbacks {
        std::function<void(std::vector<protocol::ServiceStatus>)> on_change;
        /// Each service runs (is healthy, where it has a check; ended with 0, if it ended). Once.
        std::function<void()> on_ready;
        /// A service failed before on_ready; that never comes then. Once.
        std::function<void(const std::string& text)> on_start_failure;
        /// No service runs or will be started again. Once; not when stop() was called before.
        std::function<void()> on_all_ended;
        /// What the module of this service, or replica, counts, from its first start on and over
        /// its restarts. May be empty.
        std::function<void(const std::string& name,
                           std::shared_ptr<const wasm::worker::Counters> counters)>
            on_counters = {};
        /// A service of the world `function` takes calls, on the other end of this socket; a
        /// replica has a name of its own. May be empty where no service is one.
        std::function<void(const std::string& service, const std::string& replica,
                           UniqueFd channel)>
            on_function_start;
        /// It has ended.
        std::function<void(const std::string& replica)> on_function_end;
    };

    ServiceSupervisor(EventLoop& loop, ProcessLauncher& launcher, LogStore& logs, Options options,
                      Callbacks callbacks);
    ServiceSupervisor(const ServiceSupervisor&) = delete;
    ServiceSupervisor& operator=(const ServiceSupervisor&) = delete;
    /// Kills what still runs.
    ~ServiceSupervisor();

    /// Starts those that wait for nobody; the rest follows on the loop. Call once. Dependencies are
    /// known services without a cycle, as decode_app_compose() assures.
    void start(const std::vector<PreparedService>& services);

    /// Ends all: SIGTERM to each service whose dependents have ended, SIGKILL after its grace
    /// period; then calls `done` once. Services are not restarted from here on. A second call only
    /// shortens every grace period to nothing.
    void stop(std::function<void()> done);

    [[nodiscard]] std::vector<protocol::ServiceStatus> statuses() const;

private:
    struct Service;
    struct Check;

    void advance();
    void launch(Service& service);
    [[nodiscard]] Result<void> make_counters(Service& service);
    void read_report(Service& service);
    void on_exit(Service& service);
    void decide_after_exit(Service& service);
    void fail_service(Service& service, const std::string& why);
    void schedule_check(Service& service);
    void run_check(Service& service);
    void finish_check(Service& service, bool passed, const std::string& outcome);
    void drop_check(Service& service);
    void kill(Service& service) noexcept;
    void stop_next();
    void report();
    void look_for_the_end();
    enum class Readiness { met, pending, impossible }; ///< From best to worst.
    [[nodiscard]] Readiness readiness(const protocol::AppDependency& dependency) const;
    [[nodiscard]] static Readiness readiness(const Service& needed,
                                             protocol::DependencyCondition condition);

    EventLoop& loop_;
    ProcessLauncher& launcher_;
    LogStore& logs_;
    Options options_;
    Callbacks callbacks_;
    std::vector<std::unique_ptr<Service>> services_; ///< In the compose file's order.
    bool ready_reported_ = false;
    bool failure_reported_ = false;
    bool end_reported_ = false;
    bool stopping_ = false;
    std::function<void()> stopped_;
};

} // namespace host_runner::agent

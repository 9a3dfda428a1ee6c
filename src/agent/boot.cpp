// SPDX-License-Identifier: Apache-2.0
#include "host_runner/agent/boot.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <memory>
#include <optional>
#include <utility>

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <fmt/format.h>

#include "host_runner/agent/block_device.hpp"
#include "host_runner/agent/channel_ports.hpp"
#include "host_runner/agent/console.hpp"
#include "host_runner/agent/data_disk.hpp"
#include "host_runner/agent/function_relay.hpp"
#include "host_runner/agent/guest_api.hpp"
#include "host_runner/agent/host_notifier.hpp"
#include "host_runner/agent/host_share.hpp"
#include "host_runner/agent/log_store.hpp"
#include "host_runner/agent/mounts.hpp"
#include "host_runner/agent/network.hpp"
#include "host_runner/agent/power_button.hpp"
#include "host_runner/agent/prepare_services.hpp"
#include "host_runner/agent/service_supervisor.hpp"
#include "host_runner/base/event_loop.hpp"
#include "host_runner/base/files.hpp"
#include "host_runner/base/units.hpp"
#include "host_runner/base/version.hpp"
#include "host_runner/protocol/channel.hpp"

namespace host_runner::agent {

namespace {

/// The four tries of start_dhcp() and a margin.
constexpr std::chrono::seconds network_timeout{12};
constexpr std::chrono::seconds flush_timeout{3};
constexpr std::chrono::seconds port_timeout{5};

Result<std::string> find_port(const GuestPaths& paths, unsigned number) {
    const auto port =
        std::find_if(protocol::channel_ports.begin(), protocol::channel_ports.end(),
                     [number](const auto& candidate) { return candidate.number == number; });
    return find_channel_port(paths.ports, paths.devices, port->guest_name, port_timeout);
}

std::string kernel_version() {
    struct utsname names {};
    return ::uname(&names) == 0 ? static_cast<const char*>(names.release) : "unknown";
}

std::string without_newline(std::string text) {
    while (!text.empty() && text.back() == '\n')
        text.pop_back();
    return text;
}

/// A shell on the serial line, started again whenever it ends.
class DevelopmentShell {
public:
    DevelopmentShell(EventLoop& loop, ProcessLauncher& launcher, LogStore& logs,
                     std::string program, std::string terminal)
        : loop_(loop), launcher_(launcher), logs_(logs), program_(std::move(program)),
          terminal_(std::move(terminal)) {
        start();
    }
    DevelopmentShell(const DevelopmentShell&) = delete;
    DevelopmentShell& operator=(const DevelopmentShell&) = delete;
    ~DevelopmentShell() {
        loop_.cancel(timer_);
        if (child_.pid <= 0)
            return;
        loop_.unwatch(child_.pidfd.get());
        ::kill(-child_.pid, SIGKILL);
        static_cast<void>(reap(child_));
    }

private:
    void start() {
        LaunchRequest request;
        request.command = {"/bin/sh", "-l"};
        request.terminal = terminal_;
        ProcessSpec spec;
        spec.argv = {program_, "launch", encode_launch_request(request)};
        spec.environment = {fmt::format("PATH={}", service_path), "HOME=/", "TERM=linux"};
        spec.new_session = true;
        auto child = launcher_.launch(spec);
        if (!child) {
            logs_.say(fmt::format("No shell on {}: {}", terminal_, child.error().describe()));
            return;
        }
        child_ = std::move(*child);
        const auto on_end = [this](std::uint32_t) {
            loop_.unwatch(child_.pidfd.get());
            static_cast<void>(reap(child_));
            child_ = {};
            // Not at once: it may fail each time.
            timer_ = loop_.call_after(std::chrono::seconds(1), [this] { start(); });
        };
        if (auto watched = loop_.watch(child_.pidfd.get(), EPOLLIN, on_end); !watched)
            logs_.say(fmt::format("The shell on {} is not watched: {}", terminal_,
                                  watched.error().describe()));
    }

    EventLoop& loop_;
    ProcessLauncher& launcher_;
    LogStore& logs_;
    std::string program_;
    std::string terminal_;
    ChildProcess child_;
    EventLoop::TimerId timer_ = 0;
};

class Agent {
public:
    Agent(EventLoop& loop, const GuestPaths& paths, std::string program)
        : loop_(loop), paths_(paths), program_(std::move(program)), console_(STDOUT_FILENO),
          logs_(join_path(paths.state, "log"), &console_),
          notifier_(
              [paths]() -> Result<UniqueFd> {
                  HR_TRY(const auto device, find_port(paths, protocol::host_api_port));
                  return net::open_device(device)();
              },
              [this](std::string_view text) { logs_.say(text); }),
          functions_(loop_, logs_) {}

    int run() {
        logs_.say(fmt::format("Version {} on Linux version {}", version, kernel_version()));
        auto done = boot();
        if (done)
            done = loop_.run();
        if (!done) {
            logs_.say(fmt::format("error: {}", done.error().describe()));
            notifier_.notify("boot.error", done.error().describe());
        }
        logs_.close();
        shell_.reset();
        services_.reset();
        api_.reset();
        if (!notifier_.flush(flush_timeout))
            logs_.say("The runner does not listen: it was not told about the end");
        return done ? 0 : 1;
    }

    void shut_down(std::string_view why) {
        logs_.say(fmt::format("Shutting down: {}", why));
        if (!std::exchange(shutting_down_, true))
            notifier_.notify("shutdown.progress", "powering off");
        if (services_)
            services_->stop([this] { loop_.stop(); }); // again: what still runs is killed
        else
            loop_.stop();
    }

private:
    /// Everything up to what happens on the loop: the network's answer and the services.
    Result<void> boot() {
        set_up_power_button();
        HR_CHECK(bring_up_interface("lo"));
        if (auto allowed = allow_low_ports(); !allowed)
            logs_.say(fmt::format("Only root's services can listen below port 1024: {}",
                                  allowed.error().describe()));
        if (path_exists(fmt::format("/sys/class/net/{}", network_card)))
            HR_CHECK(request_address());
        else
            logs_.say("There is no network card");

        progress("loading host-shared");
        HR_TRY(share_, take_share());
        HR_CHECK(serve_api());
        HR_TRY(data_disk_, set_up_disk());
        auto info = state_.info();
        info.data_disk = to_string(data_disk_);
        state_.set_info(std::move(info));
        notifier_.notify("instance.info", encode_instance_info(share_.instance));
        if (data_disk_ != DataDiskState::none)
            progress("data disk ready");
        name_machine();
        if (is_development())
            shell_.emplace(loop_, launcher_, logs_, program_, paths_.serial);
        if (!address_pending_)
            loop_.post([this] { start_services(); });
        return {};
    }

    void progress(std::string_view step) {
        logs_.say(step);
        notifier_.notify("boot.progress", step);
    }

    void fail_boot(const Error& error) {
        logs_.say(fmt::format("error: {}", error.describe()));
        notifier_.notify("boot.error", error.describe());
    }

    [[nodiscard]] bool is_development() const {
        const auto flavour = read_file(paths_.flavour, 64);
        return flavour && without_newline(*flavour) == "dev";
    }

    void set_up_power_button() {
        // Nothing loads a driver by itself here: there is no udev.
        ProcessSpec spec;
        spec.argv = {"modprobe", "-a", "button", "evdev"};
        const auto loaded = run_captured(launcher_, spec, std::chrono::seconds(10));
        auto button = PowerButton::watch(loop_, paths_.input,
                                         [this] { shut_down("the power button was pressed"); });
        if (button)
            power_button_ = std::move(*button);
        else
            logs_.say(fmt::format(
                "The power button does nothing: {}{}", button.error().describe(),
                loaded && !loaded->err.empty() ? ": " + without_newline(loaded->err) : ""));
    }

    Result<void> request_address() {
        std::array<int, 2> fds{};
        if (::pipe2(fds.data(), O_CLOEXEC) != 0)
            return fail_errno("Cannot make a pipe", errno);
        UniqueFd reader(fds[0]);
        const UniqueFd writer(fds[1]);
        HR_TRY(dhcp_, start_dhcp(launcher_, writer.get()));
        logs_.attach(loop_, "network", std::move(reader));
        address_pending_ = true;
        address_timer_ = loop_.call_after(network_timeout, [this] {
            // It goes on trying in the background.
            continue_without_address("no answer in time");
        });
        return loop_.watch(dhcp_.pidfd.get(), EPOLLIN, [this](std::uint32_t) {
            loop_.unwatch(dhcp_.pidfd.get());
            const auto status = reap(dhcp_);
            if (!status || !status->exited || status->code != 0) {
                continue_without_address(status ? status->describe() : status.error().describe());
                return;
            }
            loop_.cancel(address_timer_);
            if (std::exchange(address_pending_, false))
                start_services();
        });
    }

    void continue_without_address(std::string_view why) {
        loop_.cancel(address_timer_);
        if (!std::exchange(address_pending_, false))
            return;
        logs_.say(fmt::format("{} has no address: DHCP ended with {}", network_card, why));
        start_services();
    }

    Result<HostShare> take_share() {
        HR_TRY(const auto disk, find_fat_disk(paths_.devices, share_label));
        const auto mount_point = join_path(paths_.state, "host-shared");
        HR_CHECK(make_directories(mount_point, 0700));
        HR_CHECK(mounter_.mount(
            {disk, mount_point, "vfat", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, ""}));
        auto share = copy_host_share(mount_point, join_path(paths_.state, "share"));
        HR_CHECK(mounter_.unmount(mount_point));
        share_disk_ = disk;
        return share;
    }

    Result<DataDiskState> set_up_disk() {
        HR_TRY(const auto cpuinfo, read_file("/proc/cpuinfo", 16 * mib));
        HR_TRY(const auto disks, virtio_disks(paths_.devices));
        DataDiskRequest request;
        request.mount_point = paths_.data;
        request.is_tdx_guest = is_tdx_guest(cpuinfo);
        // vda is the root, vdb the data disk; which one is the share is told by its label.
        if (disks.size() >= 2 && disks[1] != share_disk_)
            request.device = disks[1];
        return set_up_data_disk(
            request, launcher_, mounter_, [this](std::string_view step) { progress(step); },
            [this](std::string_view text) { logs_.say(text); });
    }

    Result<void> serve_api() {
        HR_TRY(const auto boot_id, current_boot_id());
        protocol::GuestInfo info;
        info.version = version;
        info.app_id = share_.instance.app_id;
        info.instance_id = share_.instance.instance_id;
        info.compose_hash = share_.compose_hash;
        info.boot_id = boot_id;
        info.flavour = is_development() ? "dev" : "release";
        info.data_disk = to_string(DataDiskState::none);
        state_.set_info(std::move(info));

        GuestApiContext context;
        context.state = &state_;
        context.logs = &logs_;
        context.mount_points = {"/", "/run", paths_.data};
        context.allow_exec = is_development();
        context.exec_environment = {
            {"PATH", std::string(service_path)}, {"HOME", "/"}, {"TERM", "linux"}};
        context.shut_down = [this] {
            loop_.post([this] { shut_down("the runner asks for it"); });
        };
        HR_TRY(const auto request_port, find_port(paths_, protocol::guest_api_port));
        HR_TRY(const auto stream_port, find_port(paths_, protocol::guest_stream_port));
        HR_TRY(api_, GuestApi::serve(std::move(context), request_port, stream_port));
        for (const auto number : protocol::invocation_ports) {
            HR_TRY(const auto port, find_port(paths_, number));
            HR_CHECK(functions_.serve_port(port));
        }
        return {};
    }

    /// Not essential: what fails is only said.
    void name_machine() {
        const auto& name = share_.app.name;
        if (::sethostname(name.c_str(), name.size()) != 0)
            logs_.say(fail_errno("Cannot set the host name", errno).value().message);
        if (auto written = write_file_atomic(paths_.hosts, hosts_of(share_.app), 0644); !written)
            logs_.say(fmt::format("Services do not find each other by name: {}",
                                  written.error().describe()));
    }

    void start_services() {
        if (shutting_down_)
            return;
        auto prepared = prepare_services(share_.app, paths_, data_disk_ != DataDiskState::none,
                                         Users::of_the_image);
        if (!prepared) {
            fail_boot(prepared.error());
            return;
        }
        ServiceSupervisor::Options options;
        options.agent_program = program_;
        if (auto cgroups = Cgroups::create(paths_.cgroups))
            options.cgroups = std::move(*cgroups);
        else
            logs_.say(fmt::format("Services have no limits: {}", cgroups.error().describe()));
        ServiceSupervisor::Callbacks callbacks;
        callbacks.on_change = [this](std::vector<protocol::ServiceStatus> services) {
            state_.set_services(std::move(services));
        };
        callbacks.on_counters = [this](const std::string& name, auto counters) {
            state_.set_counters(name, std::move(counters));
        };
        callbacks.on_ready = [this] {
            progress("done");
        };
        callbacks.on_start_failure = [this](const std::string& text) {
            notifier_.notify("boot.error", text);
        };
        callbacks.on_all_ended = [this] {
            logs_.say("All services have ended");
            if (share_.app.power_off_when_done)
                loop_.post([this] { shut_down("the last service ended"); });
        };
        if (share_.app.services.empty())
            logs_.say("The compose file names no services");
        else
            progress("starting services");
        if (auto names = functions_of(share_.app); !names.empty()) {
            functions_.set_functions(std::move(names));
            callbacks.on_function_start = [this](const std::string& service,
                                                 const std::string& replica, UniqueFd channel) {
                functions_.attach(service, replica, std::move(channel));
            };
            callbacks.on_function_end = [this](const std::string& replica) {
                functions_.detach(replica);
            };
        }
        services_.emplace(loop_, launcher_, logs_, std::move(options), std::move(callbacks));
        services_->start(*prepared);
    }

    EventLoop& loop_;
    GuestPaths paths_;
    std::string program_;
    ForkExecLauncher launcher_;
    SystemMounter mounter_;
    Console console_;
    LogStore logs_;
    HostNotifier notifier_;
    GuestState state_;
    HostShare share_;
    std::string share_disk_;
    DataDiskState data_disk_ = DataDiskState::none;
    ChildProcess dhcp_;
    bool address_pending_ = false;
    EventLoop::TimerId address_timer_ = 0;
    bool shutting_down_ = false;
    std::optional<PowerButton> power_button_;
    std::optional<DevelopmentShell> shell_;
    FunctionRelay functions_;
    std::optional<ServiceSupervisor> services_;
    std::unique_ptr<GuestApi> api_;
};

} // namespace

int run_agent(const GuestPaths& paths, const std::string& program) {
    const auto give_up = [](const Error& error) {
        static_cast<void>(
            write_all(STDOUT_FILENO, fmt::format("guest_agent: {}\n", error.describe())));
        return 1;
    };
    // Before the agent starts its threads, which inherit the blocked signals.
    auto loop = EventLoop::create();
    if (!loop)
        return give_up(loop.error());
    std::unique_ptr<Agent> agent;
    auto watched = (*loop)->watch_signals({SIGTERM, SIGINT, SIGPIPE}, [&agent](int signal) {
        if (signal != SIGPIPE)
            agent->shut_down("init asks for it");
    });
    if (!watched)
        return give_up(watched.error());
    agent = std::make_unique<Agent>(**loop, paths, program);
    return agent->run();
}

} // namespace host_runner::agent

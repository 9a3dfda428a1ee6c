// SPDX-License-Identifier: Apache-2.0
#include "backend_session.hpp"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <map>
#include <optional>
#include <utility>

#include <sys/syscall.h>
#include <unistd.h>

#include <fmt/format.h>

#include "host_runner/base/files.hpp"
#include "host_runner/base/log.hpp"
#include "host_runner/base/unique_fd.hpp"
#include "host_runner/instance/logs.hpp"
#include "host_runner/qemu/qmp_client.hpp"
#include "host_runner/spec/vm_spec.hpp"

namespace host_runner::libvirt {

namespace {

using instance::MachineEnd;
using instance::StopStepKind;
using std::chrono::milliseconds;
using namespace std::chrono_literals;

constexpr auto connect_limit = 10s;
/// libvirt sends SIGTERM, and SIGKILL some 10 s later (qemuProcessKill).
constexpr std::uint32_t close_wait_ms = 20'000;
constexpr std::size_t max_cmdline_bytes = 256UL * 1024;

/// Source: libvirt include/libvirt/libvirt-domain.h, virDomainEventStoppedDetailType
enum StoppedDetail : std::int64_t {
    stopped_shutdown = 0,
    stopped_destroyed = 1,
    stopped_crashed = 2
};

/// Source: libvirt include/libvirt/libvirt-common.h, virConnectCloseReason
std::string_view close_reason(std::int64_t reason) {
    switch (reason) {
    case 0:
        return "an error";
    case 1:
        return "the daemon has ended";
    case 2:
        return "the daemon does not answer";
    case 3:
        return "closed here";
    default:
        return "no reason given";
    }
}

tl::unexpected<Error> refused(const std::string& uri, const std::string& cause) {
    const bool forbidden = cause.find("ermission denied") != std::string::npos ||
                           cause.find("uthentication") != std::string::npos ||
                           cause.find("uthorization") != std::string::npos;
    return fail(forbidden ? ErrorCode::permission_denied : ErrorCode::unavailable,
                fmt::format("libvirt at {} does not take us: {}", uri, cause),
                forbidden ? "be in the group libvirt, or use --backend libvirt=qemu:///session"
                          : "install it (apt install libvirt-daemon-system) and start it "
                            "(systemctl start virtqemud.socket or libvirtd.socket), or name "
                            "another URI with --backend libvirt=URI");
}

} // namespace

pid_t find_qemu(const std::string& uuid, const std::string& proc) {
    const auto wanted = std::string("\0-uuid\0", 7) + uuid + '\0';
    const auto entries = list_directory(proc);
    if (!entries)
        return 0;
    for (const auto& entry : *entries) {
        if (entry.find_first_not_of("0123456789") != std::string::npos)
            continue;
        const auto line = read_file(fmt::format("{}/{}/cmdline", proc, entry), max_cmdline_bytes);
        if (line && line->find(wanted) != std::string::npos)
            return static_cast<pid_t>(std::strtol(entry.c_str(), nullptr, 10));
    }
    return 0;
}

/// Lives on the loop's thread alone.
class LibvirtMachine final : public instance::Machine {
public:
    LibvirtMachine(BackendSession& session, EventLoop& loop, std::string uuid,
                   instance::MachineHooks hooks)
        : session_(session), loop_(loop), uuid_(std::move(uuid)), hooks_(std::move(hooks)) {
        session_.attach(&loop, this);
    }
    ~LibvirtMachine() override {
        loop_.unwatch(pidfd_.get());
        session_.attach(nullptr, nullptr);
        if (!ended_) {
            static_cast<void>(kill_by_pid());
            session_.close(close_wait_ms);
        }
    }

    [[nodiscard]] pid_t pid() const override {
        return pid_;
    }
    [[nodiscard]] bool runs() const override {
        return !ended_;
    }
    [[nodiscard]] bool is_connected() const override {
        return started_ && !ended_ && !session_.lost_;
    }

    void take_step(StopStepKind kind, milliseconds /*limit*/, Failure failed) override {
        switch (kind) {
        case StopStepKind::guest_shutdown:
            return;
        case StopStepKind::system_powerdown:
            return request(host_runner_libvirt_power_button, std::move(failed));
        case StopStepKind::qmp_quit:
        case StopStepKind::terminate:
            return request(host_runner_libvirt_terminate, std::move(failed));
        case StopStepKind::kill:
            // libvirt would try SIGTERM for another 10 s.
            if (kill_by_pid())
                return;
            return request(host_runner_libvirt_kill, std::move(failed));
        }
    }

    void resume(std::function<void(const Result<void>&)> done) override {
        resume_done_ = std::move(done);
        resume_number_ = next_number_;
        request(host_runner_libvirt_resume,
                [this](const Error& error) { finish_resume(tl::unexpected<Error>(error)); });
    }

    void on_event(const SessionEvent& event) {
        if (ended_)
            return;
        switch (event.kind) {
        case host_runner_libvirt_connected:
        case host_runner_libvirt_refused:
            return;
        case host_runner_libvirt_started:
            return on_started();
        case host_runner_libvirt_start_failed:
            end_.exit = {true, 1, 0};
            end_.exit_words = "libvirt did not start the domain";
            end_.error_text = event.text;
            return finish();
        case host_runner_libvirt_stopped:
            return on_stopped(event.number);
        case host_runner_libvirt_state:
            return hooks_.on_status(event.text);
        case host_runner_libvirt_disk_error:
            return hooks_.on_disk_error(event.text == "enospc", event.text);
        case host_runner_libvirt_monitor:
            return on_monitor(event.text);
        case host_runner_libvirt_request_done:
            failures_.erase(event.number);
            if (event.number == resume_number_)
                finish_resume({});
            return;
        case host_runner_libvirt_request_failed:
            return fail_request(event.number, event.text);
        case host_runner_libvirt_connection_lost:
            return on_lost(event.number);
        }
    }

private:
    void request(HostRunnerLibvirtRequest request, Failure failed) {
        const auto number = next_number_++;
        failures_.emplace(number, std::move(failed));
        if (session_.session_ == nullptr || session_.lost_) {
            // Posted, so that steps do not begin within one another.
            loop_.post([self = std::weak_ptr(alive_), this, number] {
                if (!self.expired())
                    fail_request(number, "the connection to libvirt is lost");
            });
            return;
        }
        session_.module_.request(session_.session_, request, number);
    }

    void fail_request(std::int64_t number, const std::string& cause) {
        const auto found = failures_.find(number);
        if (found == failures_.end())
            return;
        const auto failed = std::move(found->second);
        failures_.erase(found);
        failed({ErrorCode::unavailable, fmt::format("libvirt: {}", cause), {}, 0});
    }

    void finish_resume(const Result<void>& result) {
        if (const auto done = std::exchange(resume_done_, {}))
            done(result);
    }

    /// @return true: SIGKILL is on its way
    bool kill_by_pid() {
        find_process();
        return pidfd_ && ::syscall(SYS_pidfd_send_signal, pidfd_.get(), SIGKILL, nullptr, 0) == 0;
    }

    void find_process() {
        if (pidfd_)
            return;
        pid_ = find_qemu(uuid_);
        if (pid_ == 0)
            return;
        pidfd_.reset(static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0)));
        // The number may have gone to another process in between.
        if (!pidfd_ || find_qemu(uuid_) != pid_) {
            pidfd_.reset();
            pid_ = 0;
        }
    }

    void on_started() {
        started_ = true;
        find_process();
        hooks_.on_status("running");
        hooks_.on_answer();
        hooks_.on_started();
    }

    void on_monitor(const std::string& text) {
        const auto brace = std::min(text.find('{'), text.size());
        const auto name = text.substr(0, brace);
        const auto json = text.substr(brace);
        log::debug("QMP event {} {}", name, instance::printable(json));
        if (name == "GUEST_PANICKED") {
            end_.panicked = true;
            end_.panic_message = qemu::panic_message(json);
        } else if (name == "SHUTDOWN" && !end_.shutdown) {
            // The first is the cause: libvirt then sends SIGTERM, which makes a second one.
            end_.shutdown = qemu::shutdown_reason(json);
        }
    }

    void on_stopped(std::int64_t detail) {
        end_.exit = {true, 0, 0};
        if (detail == stopped_shutdown && !end_.shutdown) {
            end_.shutdown = qemu::ShutdownReason::guest_shutdown;
        } else if (detail == stopped_destroyed && !end_.shutdown) {
            end_.shutdown = qemu::ShutdownReason::host_signal;
        } else if (detail != stopped_shutdown && detail != stopped_destroyed) {
            end_.exit = {true, 1, 0};
            end_.exit_words = detail == stopped_crashed
                                  ? "libvirt says that QEMU crashed; its messages are in libvirt's "
                                    "own log of the domain"
                                  : "libvirt says that QEMU failed; its messages are in libvirt's "
                                    "own log of the domain";
        }
        finish();
    }

    /// The domain ends with the connection, but only by a daemon that lives. One that does not
    /// leaves QEMU behind.
    void on_lost(std::int64_t reason) {
        session_.lost_ = true;
        end_.shutdown.reset();
        end_.exit = {true, 1, 0};
        const bool killed = kill_by_pid();
        end_.exit_words = fmt::format(
            "the connection to libvirt at {} was lost ({}){}", session_.uri_, close_reason(reason),
            killed ? "; its QEMU was killed, because nobody watches over it any more"
                   : "; its daemon ends the VM, if it still lives");
        if (!killed)
            return finish();
        const auto watched = loop_.watch(pidfd_.get(), EPOLLIN, [this](std::uint32_t) {
            loop_.unwatch(pidfd_.get());
            finish();
        });
        if (!watched)
            finish();
    }

    void finish() {
        if (std::exchange(ended_, true))
            return;
        // After what the host API's thread has already posted. Ours go with us.
        loop_.post([self = std::weak_ptr(alive_), this] {
            if (self.expired())
                return;
            const auto on_end = std::move(hooks_.on_end);
            const auto end = std::move(end_);
            on_end(end);
        });
    }

    BackendSession& session_;
    EventLoop& loop_;
    const std::string uuid_;
    instance::MachineHooks hooks_;
    MachineEnd end_;
    bool started_ = false;
    bool ended_ = false;
    pid_t pid_ = 0;
    UniqueFd pidfd_;
    std::int64_t next_number_ = 1;
    std::map<std::int64_t, Failure> failures_;
    std::function<void(const Result<void>&)> resume_done_;
    std::int64_t resume_number_ = 0;
    std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

BackendSession::BackendSession(const HostRunnerLibvirtModule& module, std::string uri)
    : module_(module), uri_(std::move(uri)) {}

BackendSession::~BackendSession() {
    *self_ = nullptr;
    close(close_wait_ms);
}

void BackendSession::close(std::uint32_t wait_ms) {
    if (auto* const session = std::exchange(session_, nullptr))
        module_.close(session, wait_ms);
    lost_ = true;
    const std::lock_guard lock(mutex_);
    events_.clear();
}

void BackendSession::on_event(void* context, HostRunnerLibvirtEventKind kind, std::int64_t number,
                              const char* text) {
    auto& session = *static_cast<BackendSession*>(context);
    const std::lock_guard lock(session.mutex_);
    session.events_.push_back({kind, number, text});
    session.arrived_.notify_all();
    if (session.loop_ != nullptr)
        session.loop_->post([self = session.self_] {
            if (*self != nullptr)
                (*self)->deliver();
        });
}

void BackendSession::deliver() {
    while (machine_ != nullptr) { // a hook may destroy it
        SessionEvent event{};
        {
            const std::lock_guard lock(mutex_);
            if (events_.empty())
                return;
            event = std::move(events_.front());
            events_.pop_front();
        }
        machine_->on_event(event);
    }
}

/// What came since the last machine ended is of no use, but that the connection was lost.
void BackendSession::forget_events() {
    const std::lock_guard lock(mutex_);
    for (const auto& event : std::exchange(events_, {}))
        lost_ = lost_ || event.kind == host_runner_libvirt_connection_lost;
}

void BackendSession::attach(EventLoop* loop, LibvirtMachine* machine) {
    machine_ = machine;
    const std::lock_guard lock(mutex_);
    loop_ = loop;
}

Result<Version> BackendSession::connect() {
    close(close_wait_ms);
    session_ = module_.open(uri_.c_str(), on_event, this);
    if (session_ == nullptr)
        return fail(ErrorCode::resource_exhausted, "libvirt's event loop cannot be started",
                    "see how many threads this user may have (ulimit -u)");
    std::optional<SessionEvent> first;
    {
        std::unique_lock lock(mutex_);
        if (arrived_.wait_for(lock, connect_limit, [this] { return !events_.empty(); })) {
            first = std::move(events_.front());
            events_.pop_front();
        }
    }
    if (first && first->kind == host_runner_libvirt_connected) {
        lost_ = false;
        return static_cast<Version>(first->number);
    }
    close(0);
    if (!first)
        return fail(ErrorCode::timeout,
                    fmt::format("libvirt at {} did not answer within 10 s", uri_),
                    "see what its daemon does (journalctl -u virtqemud -u libvirtd)");
    return refused(uri_, first->text);
}

Result<std::unique_ptr<instance::Machine>>
BackendSession::start(EventLoop& loop, const std::string& xml, instance::MachineHooks hooks) {
    HR_ASSERT(machine_ == nullptr);
    forget_events();
    if (lost_)
        HR_CHECK(connect());
    HR_TRY(const auto identity, domain_identity(xml));
    auto machine = std::make_unique<LibvirtMachine>(*this, loop, identity.uuid, std::move(hooks));
    module_.start(session_, identity.name.c_str(), xml.c_str());
    return machine;
}

} // namespace host_runner::libvirt

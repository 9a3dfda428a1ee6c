// SPDX-License-Identifier: Apache-2.0
#include "module.hpp"

#include <chrono>
#include <condition_variable>
#include <csignal>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <libvirt/libvirt-qemu.h>
#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>

namespace {

using namespace std::chrono_literals;

/// A daemon that is silent for this long, three times in a row, is gone.
constexpr int keepalive_seconds = 5;
constexpr unsigned keepalive_count = 3;

std::string last_error() {
    const auto* const error = virGetLastError();
    return error != nullptr && error->message != nullptr ? error->message : "no cause given";
}

std::uint64_t library_version() {
    unsigned long version = 0; // NOLINT(google-runtime-int): libvirt's type
    return virGetVersion(&version, nullptr, nullptr) == 0 ? version : 0;
}

std::int64_t last_error_code() {
    return virGetLastErrorCode();
}

/// Asked for once in a process and never ended: libvirt keeps its registration for ever.
class EventThread {
public:
    static bool start() {
        static EventThread only;
        return only.works_;
    }

private:
    EventThread() {
        works_ = virInitialize() == 0 && virEventRegisterDefaultImpl() == 0;
        if (!works_)
            return;
        // An event loop with nothing to wait for would not return.
        static_cast<void>(virEventAddTimeout(
            1'000, [](int, void*) {}, nullptr, nullptr));
        std::thread([] {
            while (true)
                static_cast<void>(virEventRunDefaultImpl());
        }).detach();
    }

    bool works_ = false;
};

/// A thread of ours must never be the one that takes the runner's signals.
class NoSignals {
public:
    NoSignals() {
        sigset_t all;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before_);
    }
    NoSignals(const NoSignals&) = delete;
    NoSignals& operator=(const NoSignals&) = delete;
    ~NoSignals() {
        pthread_sigmask(SIG_SETMASK, &before_, nullptr);
    }

private:
    sigset_t before_{};
};

/// Held by its owner, by the worker thread and by each callback that libvirt knows.
class Session : public std::enable_shared_from_this<Session> {
public:
    Session(std::string uri, HostRunnerLibvirtSink sink, void* context)
        : uri_(std::move(uri)), sink_(sink), context_(context) {}

    void run() {
        const NoSignals no_signals;
        std::thread([self = shared_from_this()] { self->work(); }).detach();
    }

    void post(std::function<void()> task) {
        {
            const std::lock_guard lock(mutex_);
            tasks_.push_back(std::move(task));
        }
        changed_.notify_all();
    }

    void connect() {
        connection_ = virConnectOpenAuth(uri_.c_str(), nullptr, 0);
        if (connection_ == nullptr)
            return tell(host_runner_libvirt_refused, last_error_code(), last_error());
        // Not every driver has it (test:///, a daemon's own): those cannot be lost either.
        static_cast<void>(virConnectSetKeepAlive(connection_, keepalive_seconds, keepalive_count));
        static_cast<void>(virConnectRegisterCloseCallback(connection_, on_close, hold(), release));
        unsigned long version = 0; // NOLINT(google-runtime-int): libvirt's type
        static_cast<void>(virConnectGetLibVersion(connection_, &version));
        tell(host_runner_libvirt_connected, static_cast<std::int64_t>(version), "");
    }

    void start_domain(const std::string& name, const std::string& xml) {
        {
            const std::lock_guard lock(mutex_);
            name_ = name;
            starting_ = true;
            stopped_.reset();
            stopped_told_ = false;
        }
        if (connection_ == nullptr || virConnectIsAlive(connection_) != 1)
            return tell(host_runner_libvirt_start_failed, VIR_ERR_NO_CONNECT,
                        "the connection to libvirt's daemon is closed");
        // Before the start, because the guest may end as soon as it has begun.
        watch_events();
        free_domain();
        domain_ = virDomainCreateXML(connection_, xml.c_str(), VIR_DOMAIN_START_AUTODESTROY);
        if (domain_ == nullptr)
            return tell(host_runner_libvirt_start_failed, last_error_code(), last_error());
        tell(host_runner_libvirt_started, 0, "");
        std::optional<int> stopped;
        {
            const std::lock_guard lock(mutex_);
            starting_ = false;
            stopped = stopped_;
        }
        if (stopped)
            tell_stopped(*stopped);
    }

    void take(HostRunnerLibvirtRequest request, std::int64_t number) {
        if (domain_ == nullptr)
            return tell(host_runner_libvirt_request_failed, number, "the domain does not run");
        int result = -1;
        switch (request) {
        case host_runner_libvirt_power_button:
            result = virDomainShutdownFlags(domain_, VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN);
            break;
        case host_runner_libvirt_terminate:
            result = virDomainDestroyFlags(domain_, VIR_DOMAIN_DESTROY_GRACEFUL);
            break;
        case host_runner_libvirt_kill:
            result = virDomainDestroy(domain_);
            break;
        case host_runner_libvirt_resume:
            result = virDomainResume(domain_);
            break;
        }
        if (result == 0)
            return tell(host_runner_libvirt_request_done, number, "");
        tell(host_runner_libvirt_request_failed, number, last_error());
    }

    /// @return false: a thread of the session hangs in a call of libvirt
    bool close(std::chrono::milliseconds wait) {
        {
            const std::lock_guard lock(sink_mutex_); // a call that is under way ends first
            sink_ = nullptr;
        }
        {
            const std::lock_guard lock(mutex_);
            tasks_.clear();
            closing_ = true;
        }
        changed_.notify_all();
        std::unique_lock lock(mutex_);
        return ended_.wait_for(lock, wait, [this] { return worker_ended_; });
    }

private:
    void work() {
        while (true) {
            std::function<void()> task;
            {
                std::unique_lock lock(mutex_);
                changed_.wait(lock, [this] { return closing_ || !tasks_.empty(); });
                if (closing_)
                    break;
                task = std::move(tasks_.front());
                tasks_.pop_front();
            }
            task();
        }
        disconnect();
        {
            const std::lock_guard lock(mutex_);
            worker_ended_ = true;
        }
        ended_.notify_all();
    }

    /// The end of the connection would end the domain too; like this it has when close() returns.
    void disconnect() {
        if (domain_ != nullptr && connection_ != nullptr && virConnectIsAlive(connection_) == 1)
            static_cast<void>(virDomainDestroy(domain_));
        if (connection_ == nullptr)
            return;
        for (const int id : callbacks_)
            static_cast<void>(virConnectDomainEventDeregisterAny(connection_, id));
        for (const int id : monitor_callbacks_)
            static_cast<void>(virConnectDomainQemuMonitorEventDeregister(connection_, id));
        static_cast<void>(virConnectUnregisterCloseCallback(connection_, on_close));
        free_domain();
        virConnectClose(connection_);
        connection_ = nullptr;
    }

    void free_domain() {
        if (domain_ != nullptr)
            virDomainFree(domain_);
        domain_ = nullptr;
    }

    void tell(HostRunnerLibvirtEventKind kind, std::int64_t number, const std::string& text) {
        const std::lock_guard lock(sink_mutex_);
        if (sink_ != nullptr)
            sink_(context_, kind, number, text.c_str());
    }

    /// Never before `started`.
    void tell_stopped(int detail) {
        {
            const std::lock_guard lock(mutex_);
            stopped_ = detail;
            if (starting_ || std::exchange(stopped_told_, true))
                return;
        }
        tell(host_runner_libvirt_stopped, detail, "");
    }

    // --- events, on libvirt's event thread -----------------------------------------------------

    void* hold() {
        return new std::shared_ptr<Session>(shared_from_this());
    }
    static void release(void* held) {
        delete static_cast<std::shared_ptr<Session>*>(held);
    }
    static Session& session_of(void* held) {
        return **static_cast<std::shared_ptr<Session>*>(held);
    }

    [[nodiscard]] bool is_ours(virDomainPtr domain) {
        const std::lock_guard lock(mutex_);
        return name_ == virDomainGetName(domain);
    }

    void watch_events() {
        if (!callbacks_.empty())
            return;
        const auto watch = [this](int event, virConnectDomainEventGenericCallback callback) {
            const int id = virConnectDomainEventRegisterAny(connection_, nullptr, event, callback,
                                                            hold(), release);
            if (id >= 0)
                callbacks_.push_back(id);
        };
        watch(VIR_DOMAIN_EVENT_ID_LIFECYCLE, VIR_DOMAIN_EVENT_CALLBACK(on_lifecycle));
        watch(VIR_DOMAIN_EVENT_ID_IO_ERROR_REASON, VIR_DOMAIN_EVENT_CALLBACK(on_disk_error));
        // Why a guest shut down (poweroff, reset, panic), and what it said in a panic, is only in
        // QEMU's own events. Listening to them does not taint the domain.
        for (const auto* const name : {"SHUTDOWN", "GUEST_PANICKED"}) {
            const int id = virConnectDomainQemuMonitorEventRegister(
                connection_, nullptr, name, on_monitor_event, hold(), release, 0);
            if (id >= 0)
                monitor_callbacks_.push_back(id);
        }
    }

    static void on_close(virConnectPtr /*connection*/, int reason, void* held) {
        session_of(held).tell(host_runner_libvirt_connection_lost, reason, "");
    }

    static int on_lifecycle(virConnectPtr /*connection*/, virDomainPtr domain, int event,
                            int detail, void* held) {
        auto& session = session_of(held);
        if (!session.is_ours(domain))
            return 0;
        switch (event) {
        case VIR_DOMAIN_EVENT_STOPPED:
            session.tell_stopped(detail);
            break;
        case VIR_DOMAIN_EVENT_SUSPENDED:
            session.tell(host_runner_libvirt_state, 0, "paused");
            break;
        case VIR_DOMAIN_EVENT_STARTED:
        case VIR_DOMAIN_EVENT_RESUMED:
            session.tell(host_runner_libvirt_state, 0, "running");
            break;
        default:
            break;
        }
        return 0;
    }

    static void on_disk_error(virConnectPtr /*connection*/, virDomainPtr domain,
                              const char* /*path*/, const char* /*alias*/, int /*action*/,
                              const char* reason, void* held) {
        auto& session = session_of(held);
        if (session.is_ours(domain))
            session.tell(host_runner_libvirt_disk_error, 0, reason == nullptr ? "" : reason);
    }

    static void on_monitor_event(virConnectPtr /*connection*/, virDomainPtr domain,
                                 const char* event, long long /*seconds*/, unsigned /*micros*/,
                                 const char* details, void* held) {
        auto& session = session_of(held);
        if (session.is_ours(domain))
            session.tell(host_runner_libvirt_monitor, 0,
                         std::string(event) + (details == nullptr ? "{}" : details));
    }

    const std::string uri_;
    // The worker's alone.
    virConnectPtr connection_ = nullptr;
    virDomainPtr domain_ = nullptr;
    std::vector<int> callbacks_;
    std::vector<int> monitor_callbacks_;

    std::mutex sink_mutex_; // guards sink_; held while it is called
    HostRunnerLibvirtSink sink_;
    void* const context_;

    std::mutex mutex_; // guards all below
    std::condition_variable changed_;
    std::condition_variable ended_;
    std::deque<std::function<void()>> tasks_;
    bool closing_ = false;
    bool worker_ended_ = false;
    std::string name_;      ///< Of the domain.
    bool starting_ = false; ///< virDomainCreateXML() has not returned, or failed.
    std::optional<int> stopped_;
    bool stopped_told_ = false;
};

} // namespace

struct HostRunnerLibvirtSession {
    std::shared_ptr<Session> session;
};

namespace {

HostRunnerLibvirtSession* open_session(const char* uri, HostRunnerLibvirtSink sink,
                                       void* context) noexcept {
    try {
        const NoSignals no_signals;
        // Errors are told, not printed.
        virSetErrorFunc(nullptr, [](void*, virErrorPtr) {});
        if (!EventThread::start())
            return nullptr;
        auto handle = std::make_unique<HostRunnerLibvirtSession>();
        handle->session = std::make_shared<Session>(uri, sink, context);
        handle->session->run();
        handle->session->post([session = handle->session.get()] { session->connect(); });
        return handle.release();
    } catch (const std::exception&) {
        return nullptr;
    }
}

void start(HostRunnerLibvirtSession* handle, const char* name, const char* xml) noexcept {
    auto* const session = handle->session.get();
    session->post([session, name = std::string(name), xml = std::string(xml)] {
        session->start_domain(name, xml);
    });
}

void take_request(HostRunnerLibvirtSession* handle, HostRunnerLibvirtRequest request,
                  std::int64_t number) noexcept {
    auto* const session = handle->session.get();
    session->post([session, request, number] { session->take(request, number); });
}

void close_session(HostRunnerLibvirtSession* handle, std::uint32_t wait_ms) noexcept {
    const std::unique_ptr<HostRunnerLibvirtSession> owned(handle);
    static_cast<void>(owned->session->close(std::chrono::milliseconds(wait_ms)));
}

} // namespace

extern "C" [[gnu::visibility("default")]] const HostRunnerLibvirtModule*
host_runner_libvirt_module() noexcept {
    static const HostRunnerLibvirtModule module{host_runner_libvirt_abi,
                                                library_version(),
                                                open_session,
                                                start,
                                                take_request,
                                                close_session};
    return &module;
}

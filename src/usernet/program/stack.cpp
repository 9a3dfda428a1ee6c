// SPDX-License-Identifier: Apache-2.0
#include "host_runner/usernet/program/stack.hpp"

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdint>
#include <optional>

#include <arpa/inet.h>
#include <slirp/libslirp.h>

#include <fmt/format.h>

namespace host_runner::usernet::program {

namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

/// The version of SlirpConfig that this file fills in: of libslirp 4.7, which newer ones still
/// take.
constexpr std::uint32_t config_version = 4;

in_addr ipv4(const char* text) {
    in_addr address{};
    HR_ASSERT(::inet_pton(AF_INET, text, &address) == 1);
    return address;
}

in6_addr ipv6(const char* text) {
    in6_addr address{};
    HR_ASSERT(::inet_pton(AF_INET6, text, &address) == 1);
    return address;
}

std::int64_t now_ms() {
    return std::chrono::duration_cast<milliseconds>(Clock::now().time_since_epoch()).count();
}

short poll_events(int slirp_events) {
    int events = 0;
    if ((slirp_events & SLIRP_POLL_IN) != 0)
        events |= POLLIN;
    if ((slirp_events & SLIRP_POLL_OUT) != 0)
        events |= POLLOUT;
    if ((slirp_events & SLIRP_POLL_PRI) != 0)
        events |= POLLPRI;
    return static_cast<short>(events);
}

int slirp_events(short events) {
    int result = 0;
    if ((events & POLLIN) != 0)
        result |= SLIRP_POLL_IN;
    if ((events & POLLOUT) != 0)
        result |= SLIRP_POLL_OUT;
    if ((events & POLLPRI) != 0)
        result |= SLIRP_POLL_PRI;
    if ((events & (POLLERR | POLLNVAL)) != 0)
        result |= SLIRP_POLL_ERR;
    if ((events & POLLHUP) != 0)
        result |= SLIRP_POLL_HUP;
    return result;
}

/// The only timer that libslirp has is that of router advertisements.
struct Timer {
    SlirpTimerId id = SLIRP_TIMER_RA;
    void* of_slirp = nullptr;
    std::optional<std::int64_t> due_ms;
};

struct SlirpCloser {
    void operator()(Slirp* slirp) const noexcept {
        ::slirp_cleanup(slirp);
    }
};

} // namespace

struct Stack::Impl {
    explicit Impl(FrameQueue& queue) : to_guest(queue) {}

    FrameQueue& to_guest;
    SlirpCb callbacks{};
    std::vector<std::unique_ptr<Timer>> timers;
    std::unique_ptr<Slirp, SlirpCloser> slirp; // last: its end calls back
    std::vector<pollfd>* filling = nullptr;
    const std::vector<pollfd>* polled = nullptr;

    static Impl& of(void* opaque) noexcept {
        return *static_cast<Impl*>(opaque);
    }

    void set_callbacks() {
        callbacks.send_packet = [](const void* data, std::size_t size, void* opaque) {
            of(opaque).to_guest.push({static_cast<const char*>(data), size});
            return static_cast<ssize_t>(size);
        };
        // What a guest does wrong is no news for its host, and it could fill a log.
        callbacks.guest_error = [](const char*, void*) {
        };
        callbacks.clock_get_ns = [](void*) -> std::int64_t {
            return std::chrono::duration_cast<std::chrono::nanoseconds>(
                       Clock::now().time_since_epoch())
                .count();
        };
        callbacks.timer_new_opaque = [](SlirpTimerId id, void* of_slirp, void* opaque) -> void* {
            auto& known = of(opaque).timers;
            known.push_back(std::make_unique<Timer>(Timer{id, of_slirp, std::nullopt}));
            return known.back().get();
        };
        callbacks.timer_free = [](void* timer, void* opaque) {
            auto& known = of(opaque).timers;
            known.erase(std::remove_if(known.begin(), known.end(),
                                       [&](const auto& one) { return one.get() == timer; }),
                        known.end());
        };
        callbacks.timer_mod = [](void* timer, std::int64_t expire_ms, void*) {
            static_cast<Timer*>(timer)->due_ms = expire_ms;
        };
        // Each round of poll() gets its descriptors anew.
        callbacks.register_poll_fd = [](int, void*) {
        };
        callbacks.unregister_poll_fd = [](int, void*) {
        };
        callbacks.notify = [](void*) {
        };
        callbacks.init_completed = [](Slirp*, void*) {
        };
    }

    Result<void> start(const Settings& settings) {
        set_callbacks();
        SlirpConfig config{};
        config.version = config_version;
        // Never `restricted`, nor disable_host_loopback: socket_guard decides, for each address,
        // where these two would close host services and answers to forwarded datagrams as well.
        config.in_enabled = true;
        config.vnetwork = ipv4("10.0.2.0");
        config.vnetmask = ipv4("255.255.255.0");
        config.vhost = ipv4("10.0.2.2");
        config.vdhcp_start = ipv4("10.0.2.10");
        config.vnameserver = ipv4("10.0.2.3");
        config.in6_enabled = settings.egress;
        config.vprefix_addr6 = ipv6("fec0::");
        config.vprefix_len = 64;
        config.vhost6 = ipv6("fec0::2");
        config.vnameserver6 = ipv6("fec0::3");
        config.disable_dns = !settings.egress;
        slirp.reset(::slirp_new(&config, &callbacks, this));
        if (!slirp)
            return fail(ErrorCode::internal, "libslirp refuses its configuration");
        for (const auto& mapping : settings.ports)
            HR_CHECK(forward(mapping));
        return {};
    }

    Result<void> forward(const spec::PortMapping& mapping) {
        const auto host = ipv4(mapping.host_address.c_str());
        const in_addr first_dhcp_address{};
        if (::slirp_add_hostfwd(slirp.get(), mapping.protocol == spec::Protocol::udp ? 1 : 0, host,
                                mapping.host_port, first_dhcp_address, mapping.guest_port) == 0)
            return {};
        return tl::unexpected<Error>(
            Error{ErrorCode::already_exists, spec::format_port_mapping(mapping), {}, errno});
    }

    void run_due_timers() {
        const auto now = now_ms();
        for (std::size_t i = 0; i < timers.size(); ++i) { // they may set themselves anew
            auto& timer = *timers[i];
            if (timer.due_ms && *timer.due_ms <= now) {
                timer.due_ms.reset();
                ::slirp_handle_timer(slirp.get(), timer.id, timer.of_slirp);
            }
        }
    }
};

Stack::Stack(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Stack::~Stack() = default;

Result<std::unique_ptr<Stack>> Stack::create(const Settings& settings, FrameQueue& to_guest) {
    auto impl = std::make_unique<Impl>(to_guest);
    HR_CHECK(impl->start(settings));
    return std::unique_ptr<Stack>(new Stack(std::move(impl)));
}

void Stack::input(std::string_view frame) {
    ::slirp_input(impl_->slirp.get(), reinterpret_cast<const std::uint8_t*>(frame.data()),
                  static_cast<int>(frame.size()));
}

milliseconds Stack::prepare(std::vector<pollfd>& descriptors) {
    auto& impl = *impl_;
    impl.filling = &descriptors;
    std::uint32_t wait_ms = UINT32_MAX;
    ::slirp_pollfds_fill(
        impl.slirp.get(), &wait_ms,
        [](int fd, int events, void* opaque) {
            auto& list = *Impl::of(opaque).filling;
            list.push_back({fd, poll_events(events), 0});
            return static_cast<int>(list.size() - 1);
        },
        &impl);
    impl.filling = nullptr;
    auto wait = wait_ms > INT_MAX ? std::int64_t{-1} : std::int64_t{wait_ms};
    for (const auto& timer : impl.timers)
        if (timer->due_ms) {
            const auto left = std::clamp<std::int64_t>(*timer->due_ms - now_ms(), 0, INT_MAX);
            wait = wait < 0 ? left : std::min(wait, left);
        }
    return milliseconds(wait);
}

void Stack::handle(const std::vector<pollfd>& descriptors, bool failed) {
    auto& impl = *impl_;
    impl.polled = &descriptors;
    ::slirp_pollfds_poll(
        impl.slirp.get(), failed ? 1 : 0,
        [](int index, void* opaque) {
            const auto& list = *Impl::of(opaque).polled;
            return index < 0 ? 0 : slirp_events(list.at(static_cast<std::size_t>(index)).revents);
        },
        &impl);
    impl.polled = nullptr;
    impl.run_due_timers();
}

} // namespace host_runner::usernet::program

// SPDX-License-Identifier: Apache-2.0
// poll_oneoff: waiting for clocks and descriptors.
#include <algorithm>
#include <array>
#include <chrono>
#include <limits>

#include <poll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "calls.hpp"
#include "clocks.hpp"
#include "stream_io.hpp"

namespace host_runner::wasm::wasi::calls {

namespace {

using SteadyClock = std::chrono::steady_clock;
using layout::EventType;

/// Over this a guest gets INVAL: more than it can have descriptors.
constexpr std::uint32_t max_subscriptions = 4096;

struct Subscription {
    std::uint64_t user_data = 0;
    EventType type = EventType::clock;
    std::uint32_t id = 0; ///< Of the clock or the descriptor.
    std::uint64_t timeout = 0;
    std::uint16_t clock_flags = 0;
};

struct Event {
    Errno code = Errno::success;
    std::uint64_t bytes = 0;
    std::uint16_t flags = 0;
};

/// What a subscription has come to: an event, or what to wait for.
struct Probe {
    std::optional<Event> event = {};
    int fd = -1;
    short events = 0;
    std::optional<TimePoint> limit = {};
    /// The descriptor tells only when to probe again: with TLS bytes can be no data.
    bool probe_again = false;
};

Probe ready(Errno code, std::uint64_t bytes = 0, std::uint16_t flags = 0) {
    return {Event{code, bytes, flags}};
}

/// INVAL: an unknown kind or flag
Answer<Subscription> parse(std::span<const std::byte> bytes) {
    Subscription parsed;
    parsed.user_data = load<std::uint64_t>(bytes, 0);
    const auto tag = load<std::uint8_t>(bytes, 8);
    if (tag > static_cast<std::uint8_t>(EventType::fd_write))
        return refuse(Errno::inval);
    parsed.type = static_cast<EventType>(tag);
    parsed.id = load<std::uint32_t>(bytes, 16);
    if (parsed.type == EventType::clock) {
        parsed.timeout = load<std::uint64_t>(bytes, 24);
        parsed.clock_flags = load<std::uint16_t>(bytes, 40);
        if ((parsed.clock_flags & ~layout::clock_absolute) != 0)
            return refuse(Errno::inval);
    }
    return parsed;
}

/// `from` plus what may be 584 years, which no point in time can express.
TimePoint later(TimePoint from, std::uint64_t wait_ns) {
    constexpr std::uint64_t century_ns = 3'155'760'000'000'000'000;
    return from + std::chrono::nanoseconds(std::min(wait_ns, century_ns));
}

Answer<Probe> probe_clock(const Subscription& subscription, TimePoint started) {
    Probe probe;
    const auto clock = host_clock(subscription.id);
    if (!clock)
        return ready(clock.error().code);
    if ((subscription.clock_flags & layout::clock_absolute) == 0) {
        probe.limit = later(started, subscription.timeout);
    } else {
        WASI_TRY(const auto now, read_clock(*clock));
        probe.limit =
            later(SteadyClock::now(), subscription.timeout - std::min(subscription.timeout, now));
    }
    if (SteadyClock::now() >= *probe.limit)
        return ready(Errno::success);
    return probe;
}

/// How TLS waits, or the error that the next call will give.
Probe wait_of(const Stream& stream, TlsStatus status) {
    if (status == TlsStatus::want_read || status == TlsStatus::want_write)
        return {{},
                stream.fd.get(),
                static_cast<short>(status == TlsStatus::want_read ? POLLIN : POLLOUT),
                stream.tls->limit(),
                true};
    const auto settled = settle({}, stream, status, Blocking::no);
    return ready(settled ? Errno::success : settled.error().code);
}

Probe probe_tls(Stream& stream, EventType type) {
    auto& tls = *stream.tls;
    // Nobody else goes on with the handshake while the guest waits here.
    if (const auto flushed = tls.flush(); flushed.status != TlsStatus::done)
        if (type == EventType::fd_write || !tls.is_established())
            return wait_of(stream, flushed.status);
    if (type == EventType::fd_write)
        return {{}, stream.fd.get(), POLLOUT};
    std::array<std::byte, 1> first{};
    const auto peeked = tls.peek(first);
    if (peeked.status == TlsStatus::done)
        return ready(Errno::success, std::max<std::size_t>(tls.pending_bytes(), 1));
    if (peeked.status == TlsStatus::closed)
        return ready(Errno::success, 0, layout::event_hangup);
    return wait_of(stream, peeked.status);
}

struct ProbeOf {
    EventType type;

    [[nodiscard]] bool reads() const {
        return type == EventType::fd_read;
    }
    [[nodiscard]] Probe host(int fd) const {
        return {{}, fd, static_cast<short>(reads() ? POLLIN : POLLOUT)};
    }
    Probe operator()(const NullFile& /*file*/) const {
        return ready(Errno::success);
    }
    Probe operator()(const InputBytes& file) const {
        return reads() ? ready(Errno::success, file.bytes.size() - file.offset)
                       : ready(Errno::badf);
    }
    Probe operator()(const CaptureOut& file) const {
        return reads() ? ready(Errno::badf) : ready(Errno::success, file.output->room(file.stream));
    }
    Probe operator()(const HostStream& file) const {
        return host(file.fd.get());
    }
    Probe operator()(const Folder& /*file*/) const {
        return ready(Errno::badf);
    }
    Probe operator()(const RegularFile& file) const {
        struct stat status {};
        if (!reads() || ::fstat(file.fd.get(), &status) != 0)
            return ready(Errno::success);
        const auto size = static_cast<std::uint64_t>(status.st_size);
        return ready(Errno::success, size - std::min(size, file.offset));
    }
    Probe operator()(const Listener& file) const {
        return reads() ? host(file.fd.get()) : ready(Errno::badf);
    }
    Probe operator()(Stream& file) const {
        return file.tls ? probe_tls(file, type) : host(file.fd.get());
    }
};

Answer<Probe> probe(Call& call, const Subscription& subscription, TimePoint started) {
    if (subscription.type == EventType::clock)
        return probe_clock(subscription, started);
    const auto entry = call.state.files.get(subscription.id);
    if (!entry)
        return ready(Errno::badf);
    return std::visit(ProbeOf{subscription.type}, (*entry)->object);
}

/// The event that poll's answer for a descriptor makes.
Event event_of(const pollfd& polled) {
    Event event;
    if ((polled.revents & POLLNVAL) != 0)
        event.code = Errno::badf;
    int readable = 0;
    if ((polled.revents & POLLIN) != 0 && ::ioctl(polled.fd, FIONREAD, &readable) == 0)
        event.bytes = static_cast<std::uint64_t>(std::max(readable, 0));
    if ((polled.revents & (POLLHUP | POLLERR)) != 0)
        event.flags = layout::event_hangup;
    return event;
}

/// One look at all subscriptions, and one wait when nothing has happened yet.
class Round {
public:
    Round(Call& call, std::span<const Subscription> subscriptions, TimePoint started)
        : call_(call), subscriptions_(subscriptions), started_(started) {}

    /// Writes the events that have happened to `out`. @return how many
    Answer<std::uint32_t> run(std::span<std::byte> out) {
        WASI_CHECK(probe_all());
        if (any_ready_)
            limit_ = started_; // only to learn what the descriptors have
        WASI_CHECK(wait_for_any(call_.state.deadline, polled_, limit_));
        return collect(out);
    }

private:
    Answer<void> probe_all() {
        for (const auto& subscription : subscriptions_) {
            WASI_TRY(auto next, probe(call_, subscription, started_));
            any_ready_ = any_ready_ || next.event.has_value();
            if (next.limit && (!limit_ || *next.limit < *limit_))
                limit_ = next.limit;
            // A negative number keeps the positions the same; poll ignores it.
            polled_.push_back({next.event ? -1 : next.fd, next.events, 0});
            probes_.push_back(next);
        }
        return {};
    }

    Answer<std::uint32_t> collect(std::span<std::byte> out) {
        std::uint32_t count = 0;
        for (std::size_t i = 0; i < probes_.size(); ++i) {
            auto event = probes_[i].event;
            if (!event && polled_[i].revents != 0 && !probes_[i].probe_again)
                event = event_of(polled_[i]);
            if (!event && subscriptions_[i].type == EventType::clock &&
                SteadyClock::now() >= *probes_[i].limit)
                event = Event{};
            if (event)
                write(out.subspan(count++ * std::size_t{layout::event_bytes}), i, *event);
        }
        return count;
    }

    void write(std::span<std::byte> place, std::size_t index, const Event& event) const {
        std::fill_n(place.begin(), layout::event_bytes, std::byte{0});
        store(place, 0, subscriptions_[index].user_data);
        store(place, 8, static_cast<std::uint16_t>(event.code));
        store(place, 10, static_cast<std::uint8_t>(subscriptions_[index].type));
        store(place, 16, event.bytes);
        store(place, 24, event.flags);
    }

    Call& call_;
    std::span<const Subscription> subscriptions_;
    TimePoint started_;
    bool any_ready_ = false;
    std::optional<TimePoint> limit_;
    std::vector<Probe> probes_;
    std::vector<pollfd> polled_;
};

} // namespace

Answer<void> poll_oneoff(Call& call) {
    constexpr std::uint32_t align = 8;
    const std::uint64_t count = call.u32(2);
    WASI_TRY(const auto written, call.memory.slot<std::uint32_t>(call.u32(3)));
    WASI_TRY(auto in, call.memory.bytes(call.u32(0), count * layout::subscription_bytes, align));
    WASI_TRY(const auto out, call.memory.bytes(call.u32(1), count * layout::event_bytes, align));
    if (count == 0 || count > max_subscriptions)
        return refuse(Errno::inval);
    // A copy, because the guest may give one place for both.
    std::vector<Subscription> subscriptions;
    subscriptions.reserve(count);
    for (; !in.empty(); in = in.subspan(layout::subscription_bytes)) {
        WASI_TRY(const auto parsed, parse(in));
        subscriptions.push_back(parsed);
    }
    const auto started = SteadyClock::now();
    for (;;) {
        WASI_TRY(const auto events, Round(call, subscriptions, started).run(out));
        if (events > 0) {
            written.set(events);
            return {};
        }
        WASI_CHECK(check_deadline(call.state.deadline));
    }
}

} // namespace host_runner::wasm::wasi::calls

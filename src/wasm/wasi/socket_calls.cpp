// SPDX-License-Identifier: Apache-2.0
#include <cerrno>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "buffers.hpp"
#include "calls.hpp"
#include "stream_io.hpp"

namespace host_runner::wasm::wasi::calls {

namespace {

Blocking blocking_of(const Entry& entry) {
    return entry.is_nonblocking() ? Blocking::no : Blocking::yes;
}

/// NOTSOCK: something else; NOTCONN: a listener
Answer<Stream*> stream_of(Entry& entry) {
    if (auto* const stream = entry.as<Stream>())
        return stream;
    return refuse(entry.as<Listener>() != nullptr ? Errno::notconn : Errno::notsock);
}

/// NOTSOCK: something else; INVAL: a stream
Answer<Listener*> listener_of(Entry& entry) {
    if (auto* const listener = entry.as<Listener>())
        return listener;
    return refuse(entry.as<Stream>() != nullptr ? Errno::inval : Errno::notsock);
}

/// The client that has come first, or waits for one.
Answer<UniqueFd> accept_client(const CallDeadline& deadline, int listener, Blocking blocking) {
    for (;;) {
        UniqueFd client(::accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
        if (client)
            return client;
        if (errno == EINTR || errno == ECONNABORTED) // the client has gone again: look for another
            continue;
        if (errno != EAGAIN || blocking == Blocking::no)
            return refuse_errno();
        WASI_CHECK(wait_for(deadline, listener, POLLIN));
    }
}

} // namespace

Answer<void> sock_accept(Call& call) {
    WASI_TRY(const auto number, call.memory.slot<std::uint32_t>(call.u32(2)));
    WASI_TRY(auto* const entry, call.file(0));
    WASI_TRY(const auto* const listener, listener_of(*entry));
    WASI_TRY(const auto flags, call.flags(1, layout::fd_flags::nonblock));
    WASI_CHECK(call.state.files.check_room());
    WASI_TRY(auto client,
             accept_client(call.state.deadline, listener->fd.get(), blocking_of(*entry)));
    // Guests have no setsockopt; without it small answers wait for the client's acknowledgement.
    const int on = 1;
    static_cast<void>(::setsockopt(client.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on));
    Stream stream{std::move(client), nullptr};
    if (listener->tls) {
        auto session = listener->tls->start(stream.fd.get());
        if (!session)
            return refuse(Errno::nobufs);
        stream.tls = *std::move(session);
    }
    WASI_TRY(const auto fd, call.state.files.insert(Entry{std::move(stream), flags}));
    number.set(fd);
    return {};
}

Answer<void> sock_recv(Call& call) {
    namespace flag = layout::receive_flags;
    WASI_TRY(const auto got, call.memory.slot<std::uint32_t>(call.u32(4)));
    WASI_TRY(const auto result_flags, call.memory.slot<std::uint16_t>(call.u32(5)));
    WASI_TRY(const auto buffers, guest_buffers(call, 1, 2));
    WASI_TRY(auto* const entry, call.file(0));
    WASI_TRY(auto* const stream, stream_of(*entry));
    WASI_TRY(const auto flags, call.flags(3, flag::peek | flag::wait_all));
    const ReceiveOptions options{blocking_of(*entry), (flags & flag::peek) != 0,
                                 (flags & flag::wait_all) != 0};
    // To peek until everything is there would be a busy wait; TLS could not keep so much.
    if (options.wait_all && (options.peek || stream->tls))
        return refuse(Errno::notsup);
    WASI_TRY(const auto count, receive(call.state.deadline, *stream, buffers, options));
    got.set(static_cast<std::uint32_t>(count));
    result_flags.set(0); // streams do not truncate
    return {};
}

Answer<void> sock_send(Call& call) {
    WASI_TRY(const auto put, call.memory.slot<std::uint32_t>(call.u32(4)));
    WASI_TRY(const auto buffers, guest_buffers(call, 1, 2));
    WASI_TRY(auto* const entry, call.file(0));
    WASI_TRY(auto* const stream, stream_of(*entry));
    WASI_CHECK(call.flags(3, 0));
    WASI_TRY(const auto count, send(call.state.deadline, *stream, buffers, blocking_of(*entry)));
    put.set(static_cast<std::uint32_t>(count));
    return {};
}

Answer<void> sock_shutdown(Call& call) {
    namespace flag = layout::shutdown_flags;
    WASI_TRY(auto* const entry, call.file(0));
    WASI_TRY(auto* const stream, stream_of(*entry));
    WASI_TRY(const auto how, call.flags(1, flag::read | flag::write));
    if (how == 0)
        return refuse(Errno::inval);
    if ((how & flag::write) != 0)
        WASI_CHECK(end_writing(call.state.deadline, *stream, blocking_of(*entry)));
    const int host_how = how == flag::read ? SHUT_RD : how == flag::write ? SHUT_WR : SHUT_RDWR;
    if (::shutdown(stream->fd.get(), host_how) != 0)
        return refuse_errno();
    return {};
}

} // namespace host_runner::wasm::wasi::calls

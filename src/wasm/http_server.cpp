// SPDX-License-Identifier: Apache-2.0
#include "host_runner/wasm/http_server.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <csignal>
#include <limits>
#include <span>

#include <sys/socket.h>

#include <fmt/format.h>

#include "handles.hpp"
#include "settings.hpp"

namespace host_runner::wasm {

namespace {

static_assert(http_kinds == hr_http_kinds);
static_assert(static_cast<int>(HttpKind::trapped) == hr_http_trapped);
static_assert(static_cast<int>(HttpKind::tls_failed) == hr_http_tls_failed);
static_assert(static_cast<int>(HttpKind::accept_failed) == hr_http_accept_failed);

constexpr std::array<std::string_view, http_kinds> names{
    "connection", "request",       "bad_request",     "rejected",     "trapped",
    "timed_out",  "out_of_memory", "guest_failed",    "client_gone",  "client_too_slow",
    "tls_failed", "outgoing",      "outgoing_denied", "accept_failed"};

using ServerHandle = std::unique_ptr<hr_http_server, DeleteBy<hr_http_server_free>>;
using EventFunction = std::function<void(HttpKind, std::string_view)>;

/// Traces of a trap are long; a log line is not.
constexpr std::size_t event_bytes = 2000;

void pass_on(void* user, std::uint32_t kind, const char* text, std::size_t size) noexcept {
    const auto& on_event = *static_cast<const EventFunction*>(user);
    if (on_event && kind < http_kinds)
        on_event(static_cast<HttpKind>(kind), plain_text({text, size}, event_bytes));
}

hr_text text_of(std::string_view text) noexcept {
    return {text.data(), text.size()};
}

std::vector<hr_text> texts_of(const std::vector<std::string>& strings) {
    std::vector<hr_text> texts;
    texts.reserve(strings.size());
    for (const auto& string : strings)
        texts.push_back(text_of(string));
    return texts;
}

Result<void> within(std::string_view name, std::uint64_t value, std::uint64_t least,
                    std::uint64_t most) {
    if (value >= least && value <= most)
        return {};
    return fail(ErrorCode::invalid_argument,
                fmt::format("HTTP server setting {} is {}, not within {} and {}", name, value,
                            least, most));
}

Result<std::uint32_t> milliseconds_of(std::string_view name, std::chrono::milliseconds value,
                                      std::uint32_t least = 1) {
    // The engine's side counts in 32 bits: 49 days.
    constexpr std::int64_t most = std::numeric_limits<std::uint32_t>::max();
    if (value.count() < least || value.count() > most)
        return fail(ErrorCode::invalid_argument,
                    fmt::format("HTTP server setting {} is {} ms, not within {} and {}", name,
                                value.count(), least, most));
    return static_cast<std::uint32_t>(value.count());
}

Result<void> check(const HttpServerSettings& settings) {
    constexpr std::uint64_t page = 64U << 10U;
    HR_CHECK(within("threads", settings.threads, 1, 256));
    HR_CHECK(within("places", settings.places, 1, 10000));
    HR_CHECK(within("memory_bytes", settings.memory_bytes, page, std::uint64_t{4} << 30U));
    HR_CHECK(within("table_elements", settings.table_elements, 1, 10'000'000));
    HR_CHECK(within("tables", settings.tables, 1, 100));
    HR_CHECK(within("memories", settings.memories, 1, 16));
    HR_CHECK(within("core_instances", settings.core_instances, 1, 100));
    HR_CHECK(within("tick in ms", static_cast<std::uint64_t>(settings.tick.count()), 1, 1000));
    HR_CHECK(within("connections", settings.connections, 1, 1'000'000));
    HR_CHECK(within("header_bytes", settings.header_bytes, 8192, 16U << 20U));
    HR_CHECK(within("headers", settings.headers, 1, 10000));
    if (settings.certificate_pem.empty() != settings.key_pem.empty())
        return fail(ErrorCode::invalid_argument,
                    "A certificate and its key are needed together, or neither");
    for (const auto& variable : settings.environment)
        if (variable.find('=') == std::string::npos)
            return fail(ErrorCode::invalid_argument,
                        fmt::format("Not NAME=VALUE: {}", plain_text(variable)));
    return {};
}

Result<void> check_listener(const UniqueFd& listener) {
    int listening = 0;
    socklen_t size = sizeof listening;
    if (::getsockopt(listener.get(), SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) == 0 &&
        listening != 0)
        return {};
    return fail(ErrorCode::invalid_argument, "Not a listening socket");
}

Result<hr_http_settings> translate(const HttpServerSettings& settings) {
    hr_http_settings to{};
    to.threads = settings.threads;
    to.places = settings.places;
    constexpr std::uint64_t page = 64U << 10U;
    to.memory_bytes = (settings.memory_bytes + page - 1) / page * page;
    to.keep_resident_bytes = settings.keep_resident_bytes;
    to.table_elements = settings.table_elements;
    to.tables = settings.tables;
    to.memories = settings.memories;
    to.core_instances = settings.core_instances;
    HR_TRY(to.tick_ms, milliseconds_of("tick", settings.tick));
    HR_TRY(to.request_timeout_ms, milliseconds_of("request_timeout", settings.request_timeout));
    HR_TRY(to.wait_for_place_ms, milliseconds_of("wait_for_place", settings.wait_for_place, 0));
    to.connections = settings.connections;
    HR_TRY(to.header_timeout_ms, milliseconds_of("header_timeout", settings.header_timeout));
    HR_TRY(to.idle_timeout_ms, milliseconds_of("idle_timeout", settings.idle_timeout));
    HR_TRY(to.body_timeout_ms, milliseconds_of("body_timeout", settings.body_timeout));
    to.header_bytes = settings.header_bytes;
    to.headers = settings.headers;
    to.outgoing_connections = settings.outgoing_connections;
    HR_TRY(to.outgoing_timeout_ms, milliseconds_of("outgoing_timeout", settings.outgoing_timeout));
    to.stdout_fd = settings.stdout_fd;
    to.stderr_fd = settings.stderr_fd;
    to.request_body_bytes = settings.request_body_bytes;
    to.outgoing_ca_pem = text_of(settings.outgoing_ca_pem);
    to.certificate_pem = text_of(settings.certificate_pem);
    to.key_pem = text_of(settings.key_pem);
    to.event = pass_on;
    return to;
}

ErrorCode code_of(std::uint32_t part, std::string_view message) {
    switch (part) {
    case hr_http_engine_part:
    case hr_http_system_part:
        return ErrorCode::resource_exhausted;
    case hr_http_component_part:
        // The engine tells its reasons apart by text only; what it says of bytes that no compiler
        // of this kind made begins so.
        return message.find("cannot load the compiled component") != std::string_view::npos &&
                       message.find("exceeds") == std::string_view::npos &&
                       message.find("limit") == std::string_view::npos
                   ? ErrorCode::corrupt_data
                   : ErrorCode::unsupported;
    default:
        return ErrorCode::invalid_argument;
    }
}

} // namespace

std::string_view to_string(HttpKind kind) noexcept {
    return names.at(static_cast<std::size_t>(kind));
}

struct HttpServer::Impl {
    EventFunction on_event;
    std::array<std::uint64_t, http_kinds> own_counters{};
    std::uint64_t* counters = own_counters.data();
    ServerHandle server; ///< Last: it uses the others until its end.
};

HttpServer::HttpServer(std::unique_ptr<Impl> impl) noexcept : impl_(std::move(impl)) {}
HttpServer::HttpServer(HttpServer&&) noexcept = default;
HttpServer& HttpServer::operator=(HttpServer&&) noexcept = default;
HttpServer::~HttpServer() = default;

Result<HttpServer> HttpServer::start(std::string_view artifact, UniqueFd listener,
                                     const HttpServerSettings& settings) {
    HR_CHECK(check(settings));
    if (listener)
        HR_CHECK(check_listener(listener));
    HR_TRY(auto translated, translate(settings));
    // The archive writes to sockets by writev, which has no flag against the signal; Rust's own
    // start-up, which ignores it elsewhere, does not run in a C++ program.
    std::signal(SIGPIPE, SIG_IGN);
    const auto environment = texts_of(settings.environment);
    const auto arguments = texts_of(settings.arguments);
    std::vector<hr_http_authority> outgoing;
    outgoing.reserve(settings.outgoing.size());
    for (const auto& [name, address] : settings.outgoing)
        outgoing.push_back({text_of(name), text_of(address)});
    translated.environment = environment.data();
    translated.environment_count = environment.size();
    translated.arguments = arguments.data();
    translated.argument_count = arguments.size();
    translated.outgoing = outgoing.data();
    translated.outgoing_count = outgoing.size();
    auto impl = std::make_unique<Impl>();
    impl->on_event = settings.on_event;
    translated.event_user = &impl->on_event;
    if (settings.counters != nullptr)
        impl->counters = settings.counters;
    translated.counters = impl->counters;

    std::uint32_t part = 0;
    wasmtime_error_t* problem = nullptr;
    impl->server.reset(
        hr_http_server_new(make_config().release(), &translated,
                           reinterpret_cast<const std::uint8_t*>(artifact.data()), // NOLINT: bytes
                           artifact.size(), listener.release(), &part, &problem));
    if (const ErrorHandle error(problem); !impl->server) {
        const auto message = message_of(*error);
        return fail(code_of(part, message), fmt::format("Cannot serve the component: {}", message));
    }
    return HttpServer(std::move(impl));
}

std::uint64_t HttpServer::stop(std::chrono::milliseconds grace) {
    const auto most = std::chrono::milliseconds(std::numeric_limits<std::uint32_t>::max());
    const auto bounded = std::clamp(grace, std::chrono::milliseconds(0), most);
    return hr_http_server_stop(impl_->server.get(), static_cast<std::uint32_t>(bounded.count()));
}

HttpCallEnd HttpServer::call(const HttpCall& call) const {
    struct Listening {
        const HttpCall& call;
        HttpCallEnd end;
    } listening{call, {}};
    const auto environment = texts_of(call.environment);
    hr_http_call to{};
    to.path = text_of(call.path);
    to.body = text_of(call.body);
    to.environment = environment.data();
    to.environment_count = environment.size();
    to.timeout_ms = static_cast<std::uint32_t>(std::clamp<std::int64_t>(
        call.timeout.count(), 1, std::numeric_limits<std::uint32_t>::max()));
    to.cancel_fd = call.cancel_fd;
    to.output = [](void* user, const char* bytes, std::size_t size) noexcept {
        return static_cast<const Listening*>(user)->call.on_output({bytes, size});
    };
    to.failed = [](void* user, std::uint32_t kind, const char* text, std::size_t size) noexcept {
        constexpr std::size_t max_message_bytes = 2000;
        auto& end = static_cast<Listening*>(user)->end;
        end.failure = static_cast<HttpKind>(kind);
        end.message = plain_text({text, size}, max_message_bytes);
    };
    to.user = &listening;
    listening.end.status = hr_http_server_call(impl_->server.get(), &to);
    return std::move(listening.end);
}

std::uint64_t HttpServer::count(HttpKind kind) const noexcept {
    const std::span counters(impl_->counters, http_kinds);
    return std::atomic_ref(counters[static_cast<std::size_t>(kind)])
        .load(std::memory_order_relaxed);
}

} // namespace host_runner::wasm

// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cerrno>
#include <thread>
#include <variant>

#include <poll.h>
#include <unistd.h>

#include <fmt/format.h>

#include "host_runner/wasm/http_server.hpp"
#include "host_runner/wasm/wasi/sockets.hpp"
#include "worlds.hpp"

namespace host_runner::wasm::worker {

namespace {

Result<UniqueFd> listen_on(const Request& request) {
    // The server does TLS by itself.
    const std::array entries{listen_entry(request, request.ports.front(), wasi::Protocol::tcp)};
    HR_TRY(auto opened, wasi::open_file_list(entries, {}));
    return std::move(std::get<wasi::Listener>(opened.files.front()).fd);
}

} // namespace

HttpServerSettings http_settings(const Start& start) {
    const auto& request = start.request;
    HttpServerSettings settings;
    settings.threads = std::clamp(std::thread::hardware_concurrency(), 1U, 8U);
    settings.memory_bytes = request.memory_bytes;
    if (request.timeout.count() > 0)
        settings.request_timeout = request.timeout;
    for (const auto& [name, value] : start.environment)
        settings.environment.push_back(fmt::format("{}={}", name, value));
    settings.arguments = request.arguments;
    settings.stdout_fd = STDOUT_FILENO;
    settings.stderr_fd = STDERR_FILENO;
    for (const auto& one : request.outgoing)
        settings.outgoing.push_back({one.name, one.address});
    settings.certificate_pem = start.pem;
    settings.key_pem = start.pem;
    settings.on_event = [](HttpKind kind, std::string_view text) {
        say(fmt::format("{}: {}", to_string(kind), text));
    };
    return settings;
}

namespace {

void wait_until_readable(int fd) {
    pollfd readable{fd, POLLIN, 0};
    while (::poll(&readable, 1, -1) < 0 && errno == EINTR)
        ;
}

} // namespace

Result<int> run_http(Start& start) {
    const auto& request = start.request;
    if (request.ports.size() != 1)
        return fail(
            ErrorCode::invalid_argument,
            fmt::format("A component that answers HTTP has one port, not {}", request.ports.size()),
            "ports: [\"8080:80\"]");
    HR_TRY(auto listener, listen_on(request));
    auto settings = http_settings(start);
    settings.counters = start.counters.data();
    HR_TRY(auto server, HttpServer::start(start.artifact, std::move(listener), settings));
    std::string().swap(start.artifact);
    HR_CHECK(start.begin({.serves_http = true, .opens_connections = !request.outgoing.empty()}));
    wait_until_readable(start.stop_fd);
    const auto given_up = server.stop(request.grace);
    if (given_up > 0)
        say(fmt::format("Stopped; {} requests were given up", given_up));
    return 0;
}

} // namespace host_runner::wasm::worker

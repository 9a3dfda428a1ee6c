// SPDX-License-Identifier: Apache-2.0
#include "host_runner/agent/guest_api.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <thread>
#include <utility>

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <fmt/format.h>

#include "host_runner/agent/system_info.hpp"
#include "host_runner/base/files.hpp"
#include "host_runner/base/process.hpp"
#include "host_runner/protocol/host_api.hpp"

namespace host_runner::agent {

namespace {

using protocol::StreamItem;

const std::string logs_path = "/api/Logs";
const std::string exec_path = "/api/Exec";

net::HttpResponse error_response(int status, std::string_view message) {
    return {status, "application/json", protocol::encode_error(message)};
}

bool send_item(const net::ChunkWriter& write, const StreamItem& item) {
    return write(protocol::encode_stream_item(item));
}

void send_error(const net::ChunkWriter& write, const std::string& message) {
    static_cast<void>(send_item(write, {StreamItem::Kind::error, "", message, 0}));
}

/// A descriptor from which `bytes` can be read.
Result<UniqueFd> readable_copy(std::string_view bytes) {
    UniqueFd fd(::memfd_create("stdin", MFD_CLOEXEC));
    if (!fd)
        return fail_errno("Cannot make a memory file", errno);
    HR_CHECK(write_all(fd.get(), bytes));
    if (::lseek(fd.get(), 0, SEEK_SET) != 0)
        return fail_errno("Cannot rewind a memory file", errno);
    return fd;
}

struct RunningCommand {
    ChildProcess child;
    std::array<UniqueFd, 2> outputs; ///< stdout, stderr
};

Result<RunningCommand> start_command(const GuestApiContext& context,
                                     const protocol::ExecRequest& request) {
    RunningCommand command;
    std::array<UniqueFd, 2> writers;
    for (std::size_t i = 0; i < 2; ++i) {
        std::array<int, 2> fds{};
        if (::pipe2(fds.data(), O_CLOEXEC) != 0)
            return fail_errno("Cannot make a pipe", errno);
        command.outputs.at(i).reset(fds[0]);
        writers.at(i).reset(fds[1]);
    }
    HR_TRY(const auto input, readable_copy(request.stdin_bytes));
    ProcessSpec spec;
    spec.argv = request.argv;
    auto environment = request.environment;
    environment.insert(context.exec_environment.begin(), context.exec_environment.end());
    spec.environment.emplace();
    for (const auto& [name, value] : environment)
        spec.environment->push_back(fmt::format("{}={}", name, value));
    spec.stdin_fd = input.get();
    spec.stdout_fd = writers[0].get();
    spec.stderr_fd = writers[1].get();
    spec.new_session = true;
    ForkExecLauncher launcher;
    HR_TRY(command.child, launcher.launch(spec));
    return command;
}

/// Sends the command's output until both pipes have ended; false: the peer is gone.
bool send_output(const GuestApiContext& context, RunningCommand& command,
                 const net::ChunkWriter& write) {
    while (command.outputs[0] || command.outputs[1]) {
        std::array<pollfd, 2> waiting{
            {{command.outputs[0].get(), POLLIN, 0}, {command.outputs[1].get(), POLLIN, 0}}};
        const int ready =
            ::poll(waiting.data(), waiting.size(), static_cast<int>(context.keep_alive.count()));
        if (context.logs->closed())
            return false;
        if (ready == 0 && !send_item(write, {StreamItem::Kind::keep_alive, "", "", 0}))
            return false;
        for (std::size_t i = 0; i < 2 && ready > 0; ++i) {
            if (waiting.at(i).revents == 0)
                continue;
            std::array<char, 32768> buffer{};
            const ssize_t count = ::read(command.outputs.at(i).get(), buffer.data(), buffer.size());
            if (count < 0 && errno == EINTR)
                continue;
            if (count <= 0) {
                command.outputs.at(i).reset();
                continue;
            }
            if (!send_item(write, {i == 0 ? StreamItem::Kind::out : StreamItem::Kind::err, "",
                                   std::string(buffer.data(), static_cast<std::size_t>(count)), 0}))
                return false;
        }
    }
    return true;
}

} // namespace

protocol::GuestInfo GuestState::info() const {
    const std::lock_guard lock(mutex_);
    return info_;
}

void GuestState::set_info(protocol::GuestInfo info) {
    const std::lock_guard lock(mutex_);
    info_ = std::move(info);
}

std::vector<protocol::ServiceStatus> GuestState::services() const {
    const std::lock_guard lock(mutex_);
    auto services = services_;
    for (auto& service : services)
        if (const auto found = counters_.find(service.name); found != counters_.end())
            service.counters = found->second->values();
    return services;
}

void GuestState::set_services(std::vector<protocol::ServiceStatus> services) {
    const std::lock_guard lock(mutex_);
    services_ = std::move(services);
}

void GuestState::set_counters(const std::string& name,
                              std::shared_ptr<const wasm::worker::Counters> counters) {
    const std::lock_guard lock(mutex_);
    counters_[name] = std::move(counters);
}

net::HttpResponse answer_guest_request(const GuestApiContext& context,
                                       const net::HttpRequest& request) {
    if (request.method != "POST")
        return error_response(405, fmt::format("{} is not served, only POST", request.method));
    if (request.path == "/api/Info")
        return {200, "application/json", protocol::encode_guest_info(context.state->info())};
    if (request.path == "/api/Services")
        return {200, "application/json", protocol::encode_services(context.state->services())};
    if (request.path == "/api/SysInfo") {
        const auto info = read_system_info(context.root, context.mount_points);
        if (!info)
            return error_response(500, info.error().describe());
        return {200, "application/json", protocol::encode_system_info(*info)};
    }
    if (request.path == "/api/Shutdown") {
        context.shut_down();
        return {200, "application/json", "null"};
    }
    if (request.path == exec_path)
        return error_response(403, context.allow_exec
                                       ? "Exec is served on the streaming port only"
                                       : "This image runs no commands for its host: only the dev "
                                         "flavour does");
    return error_response(404, fmt::format("There is no method {}", request.path));
}

void stream_logs(const GuestApiContext& context, const net::HttpRequest& request,
                 const net::ChunkWriter& write) {
    const auto wanted = protocol::decode_logs_request(request.body);
    if (!wanted) {
        send_error(write, wanted.error().describe());
        return;
    }
    std::uint64_t last = 0;
    const auto send_lines = [&](const std::vector<LogLine>& lines) {
        return std::all_of(lines.begin(), lines.end(), [&](const LogLine& line) {
            last = line.number;
            return send_item(write, {StreamItem::Kind::out, line.service, line.text + "\n", 0});
        });
    };
    if (!send_lines(context.logs->lines(wanted->service, wanted->tail)))
        return;
    while (wanted->follow && !context.logs->closed()) {
        const auto lines = context.logs->wait_for_lines(wanted->service, last, context.keep_alive);
        const bool good = lines.empty()
                              ? send_item(write, {StreamItem::Kind::keep_alive, "", "", 0})
                              : send_lines(lines);
        if (!good)
            return;
    }
}

void stream_exec(const GuestApiContext& context, const net::HttpRequest& request,
                 const net::ChunkWriter& write) {
    const auto wanted = protocol::decode_exec_request(request.body);
    if (!wanted) {
        send_error(write, wanted.error().describe());
        return;
    }
    auto command = start_command(context, *wanted);
    if (!command) {
        send_error(write, command.error().describe());
        return;
    }
    const bool complete = send_output(context, *command, write);
    // A program that closed its output may still run: while the peer listens, it is waited for.
    bool peer_listens = complete;
    auto status = Result<ExitStatus>(fail(ErrorCode::timeout, ""));
    while (peer_listens && !status && status.error().code == ErrorCode::timeout) {
        status = wait_for_exit(command->child, context.keep_alive);
        if (!status && status.error().code == ErrorCode::timeout)
            peer_listens = !context.logs->closed() &&
                           send_item(write, {StreamItem::Kind::keep_alive, "", "", 0});
    }
    if (!peer_listens) {
        ::kill(-command->child.pid, SIGKILL);
        static_cast<void>(reap(command->child));
        return;
    }
    if (!status) {
        send_error(write, status.error().describe());
        return;
    }
    const int code = status->exited ? status->code : 128 + status->signal;
    static_cast<void>(send_item(write, {StreamItem::Kind::exit, "", "", code}));
}

/// One virtio-serial port and the thread that serves it.
struct GuestApi::Port {
    Port(net::HttpHandler handler, net::HttpLimits limits) : server(std::move(handler), limits) {}

    /// Waits until the runner is connected; false: the end was asked for.
    ///
    /// While it is not, poll() reports POLLHUP at once and always, so the wait is on the edge: the
    /// driver wakes the port's waiters when the host opens it (linux drivers/char/virtio_console.c,
    /// VIRTIO_CONSOLE_PORT_OPEN).
    [[nodiscard]] bool wait_for_host() const {
        const UniqueFd waiter(::epoll_create1(EPOLL_CLOEXEC));
        epoll_event on_device{};
        on_device.events = EPOLLIN | EPOLLOUT | EPOLLET;
        epoll_event on_stop{};
        on_stop.events = EPOLLIN;
        if (!waiter || ::epoll_ctl(waiter.get(), EPOLL_CTL_ADD, device.get(), &on_device) != 0 ||
            ::epoll_ctl(waiter.get(), EPOLL_CTL_ADD, stop.get(), &on_stop) != 0)
            return false;
        while (!stopping) {
            pollfd state{device.get(), POLLIN, 0};
            if (::poll(&state, 1, 0) >= 0 && (state.revents & POLLHUP) == 0)
                return true;
            epoll_event event{};
            static_cast<void>(::epoll_wait(waiter.get(), &event, 1, 1000));
        }
        return false;
    }

    void run() {
        while (wait_for_host())
            server.serve(device.get());
    }

    net::HttpServer server;
    UniqueFd device;
    UniqueFd stop; ///< eventfd
    std::atomic<bool> stopping = false;
    std::thread thread;
};

GuestApi::GuestApi(GuestApiContext context) : context_(std::move(context)) {}

Result<std::unique_ptr<GuestApi>> GuestApi::serve(GuestApiContext context,
                                                  const std::string& request_port,
                                                  const std::string& stream_port) {
    std::unique_ptr<GuestApi> api(new GuestApi(std::move(context)));
    const auto& shared = api->context_;
    for (const auto& path : {request_port, stream_port}) {
        net::HttpLimits limits;
        limits.max_body_bytes = 1 << 20;
        auto port = std::make_unique<Port>(
            [&shared](const net::HttpRequest& request) {
                return answer_guest_request(shared, request);
            },
            limits);
        const bool may_stream_for_long = path == stream_port;
        port->server.set_streaming(
            logs_path, [&shared, may_stream_for_long](const net::HttpRequest& request,
                                                      const net::ChunkWriter& write) {
                const auto wanted = protocol::decode_logs_request(request.body);
                if (wanted && wanted->follow && !may_stream_for_long)
                    send_error(write, "Following logs is served on the streaming port only");
                else
                    stream_logs(shared, request, write);
            });
        if (shared.allow_exec && may_stream_for_long)
            port->server.set_streaming(exec_path, [&shared](const net::HttpRequest& request,
                                                            const net::ChunkWriter& write) {
                stream_exec(shared, request, write);
            });
        port->device.reset(::open(path.c_str(), O_RDWR | O_CLOEXEC));
        if (!port->device)
            return fail_errno(fmt::format("Cannot open {}", path), errno);
        port->stop.reset(::eventfd(0, EFD_CLOEXEC));
        if (!port->stop)
            return fail_errno("Cannot make an eventfd", errno);
        api->ports_.push_back(std::move(port));
    }
    for (const auto& port : api->ports_)
        port->thread = std::thread([raw = port.get()] { raw->run(); });
    return api;
}

GuestApi::~GuestApi() {
    for (const auto& port : ports_) {
        port->stopping = true;
        const std::uint64_t one = 1;
        static_cast<void>(!::write(port->stop.get(), &one, sizeof one));
        port->server.interrupt();
    }
    for (const auto& port : ports_)
        if (port->thread.joinable())
            port->thread.join();
}

} // namespace host_runner::agent

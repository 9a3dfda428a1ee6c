// SPDX-License-Identifier: Apache-2.0
#include "host_runner/agent/native.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <map>
#include <memory>
#include <optional>
#include <utility>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "host_runner/agent/console.hpp"
#include "host_runner/agent/function_relay.hpp"
#include "host_runner/agent/log_store.hpp"
#include "host_runner/base/event_loop.hpp"
#include "host_runner/base/exit_code.hpp"
#include "host_runner/base/files.hpp"
#include "host_runner/base/units.hpp"
#include "host_runner/base/unix_socket.hpp"
#include "host_runner/crypto/digest.hpp"
#include "host_runner/spec/compose.hpp"
#include "host_runner/spec/port_mapping.hpp"

namespace host_runner::agent {

namespace {

/// The compose file's limit of all files together is far below.
constexpr std::size_t max_file_bytes = 128 * mib;

// ---- the state folder
// ----------------------------------------------------------------------------

Result<std::string> make_state(const NativeOptions& options, const std::string& name) {
    const auto wanted = options.state.empty() ? join_path(parent_path(options.compose_path),
                                                          ".host-runner-dev/" + name)
                                              : options.state;
    const auto add_hint = [](Error error) {
        error.hint = "name another folder: --state FOLDER";
        return error;
    };
    HR_CHECK(make_directories(wanted, 0700).map_error(add_hint));
    HR_TRY(auto state, canonical_path(wanted));
    // It may lie in somebody's repository.
    HR_CHECK(write_file_atomic(join_path(state, ".gitignore"), "*\n", 0644).map_error(add_hint));
    return state;
}

Result<UniqueFd> lock_state(const std::string& state) {
    return try_lock_file(join_path(state, "lock")).map_error([&](Error error) {
        if (error.code == ErrorCode::already_exists) {
            error.message = fmt::format("Another guest_agent --dev uses {}", state);
            error.hint = "end that one, or give this one another folder: --state FOLDER";
        }
        return error;
    });
}

/// Copies of the files that services name, as a VM gets them; those of earlier runs go.
Result<void> deliver(const std::vector<spec::LocalFile>& files, const std::string& folder) {
    HR_CHECK(make_directories(folder, 0755));
    HR_TRY(const auto there, list_directory(folder));
    for (const auto& name : there)
        if (std::none_of(files.begin(), files.end(),
                         [&](const auto& file) { return file.entry.sha256 == name; }))
            HR_CHECK(remove_file(join_path(folder, name)));
    for (const auto& file : files) {
        const auto copy = join_path(folder, file.entry.sha256);
        if (path_exists(copy))
            continue;
        HR_TRY(const auto bytes, read_file(file.path, max_file_bytes));
        if (crypto::sha256_hex(bytes) != file.entry.sha256)
            return fail(ErrorCode::corrupt_data,
                        fmt::format("{} has changed since it was hashed", file.path),
                        "run again when nothing writes to it");
        HR_CHECK(write_file_atomic(copy, bytes, 0555));
    }
    return {};
}

// ---- ports
// ---------------------------------------------------------------------------------------

/// What -p says, then what it leaves of the compose file's.
Result<std::vector<spec::PortMapping>> all_mappings(const NativeOptions& options,
                                                    const protocol::AppCompose& app,
                                                    std::vector<spec::PortMapping> from_compose) {
    std::vector<spec::PortMapping> mappings;
    for (const auto& text : options.ports) {
        HR_TRY(const auto asked, spec::parse_port_mappings(text));
        mappings.insert(mappings.end(), asked.begin(), asked.end());
    }
    for (const auto& asked : mappings)
        if (std::none_of(app.services.begin(), app.services.end(), [&](const auto& service) {
                const auto& ports = service.ports;
                return service.module && asked.protocol == spec::Protocol::tcp &&
                       std::find(ports.begin(), ports.end(), asked.guest_port) != ports.end();
            }))
            return fail(ErrorCode::invalid_argument,
                        fmt::format("-p {}: no WebAssembly service has the port {}",
                                    format_port_mapping(asked), asked.guest_port),
                        "without a VM only their ports are forwarded; programs open theirs "
                        "themselves");
    const auto asked = mappings;
    std::copy_if(from_compose.begin(), from_compose.end(), std::back_inserter(mappings),
                 [&](const auto& mapping) {
                     return std::none_of(asked.begin(), asked.end(), [&](const auto& other) {
                         return other.guest_port == mapping.guest_port &&
                                other.protocol == mapping.protocol;
                     });
                 });
    return mappings;
}

struct Reserved {
    UniqueFd fd;
    std::uint16_t port = 0;
};

/// Binds the port without listening: SO_REUSEADDR lets a worker bind it too and listen, and nobody
/// who does without. Source: linux net/ipv4/inet_connection_sock.c, inet_bind_conflict()
Result<Reserved> reserve(const spec::PortMapping& mapping) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(mapping.host_port);
    ::inet_pton(AF_INET, mapping.host_address.c_str(), &address.sin_addr); // the parser checked it
    UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const int on = 1;
    socklen_t size = sizeof address;
    auto* const any = reinterpret_cast<sockaddr*>(&address);
    if (!fd || ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
        ::bind(fd.get(), any, size) != 0 || ::getsockname(fd.get(), any, &size) != 0) {
        auto failure = fail_errno(
            fmt::format("Cannot open port {} of {}", mapping.host_port, mapping.host_address),
            errno, fmt::format("choose another one: -p tcp::0:{} takes any", mapping.guest_port));
        if (failure.value().sys_errno == EADDRINUSE)
            failure.value().code = ErrorCode::already_exists;
        return failure;
    }
    return Reserved{std::move(fd), ntohs(address.sin_port)};
}

/// How a client on this machine writes it.
std::string reached_at(const wasm::worker::Port& port) {
    return fmt::format("{}:{}", port.address == "0.0.0.0" ? "127.0.0.1" : port.address,
                       port.listen_port);
}

std::string address_line(const PreparedService& prepared, const wasm::worker::Port& port) {
    const auto& module = *prepared.service.module;
    const bool is_http = module.world == protocol::World::wasi_http;
    return fmt::format("Service {}: port {} is {}{}{}", prepared.service.name, port.number,
                       !is_http     ? ""
                       : module.tls ? "https://"
                                    : "http://",
                       reached_at(port), module.tls && !is_http ? ", with TLS" : "");
}

/// Gives each port of a module the place where it is listened on.
Result<void> place_ports(NativeServices& native, const std::vector<spec::PortMapping>& mappings) {
    std::map<std::uint16_t, std::string> owners;
    std::vector<const spec::PortMapping*> used;
    for (auto& prepared : native.services) {
        if (!prepared.launch.module)
            continue;
        for (auto& port : prepared.launch.module->worker.ports) {
            const auto [owner, is_new] = owners.emplace(port.number, prepared.service.name);
            if (!is_new)
                return fail(ErrorCode::invalid_argument,
                            fmt::format("The services {} and {} both have the port {}",
                                        owner->second, prepared.service.name, port.number),
                            "in a VM only one of them could listen on it: give one another port");
            const auto mapping =
                std::find_if(mappings.begin(), mappings.end(), [&](const auto& each) {
                    return each.protocol == spec::Protocol::tcp && each.guest_port == port.number;
                });
            HR_ASSERT(mapping != mappings.end()); // each port comes from a mapping
            used.push_back(&*mapping);
            HR_TRY(auto reserved, reserve(*mapping));
            port.address = mapping->host_address;
            port.listen_port = reserved.port;
            native.reserved.push_back(std::move(reserved.fd));
            native.addresses.push_back(address_line(prepared, port));
        }
    }
    for (const auto& mapping : mappings) {
        if (std::find(used.begin(), used.end(), &mapping) != used.end())
            continue;
        // A program that opens the same number is there, as far as we can tell.
        if (mapping.host_port == mapping.guest_port && !owners.contains(mapping.guest_port))
            continue;
        const bool is_second =
            mapping.protocol == spec::Protocol::tcp && owners.contains(mapping.guest_port);
        native.notices.push_back(fmt::format(
            "The port {} is not forwarded: {}", format_port_mapping(mapping),
            is_second ? "without a VM a port has one address"
                      : "without a VM a program opens its ports itself, under their own numbers"));
    }
    return {};
}

/// Modules ask services of the same file where these are now.
void redirect_outgoing(std::vector<PreparedService>& services) {
    for (auto& asking : services) {
        if (!asking.launch.module)
            continue;
        for (auto& outgoing : asking.launch.module->worker.outgoing)
            for (const auto& asked : services) {
                if (!asked.launch.module)
                    continue;
                for (const auto& port : asked.launch.module->worker.ports)
                    if (outgoing.name == fmt::format("{}:{}", asked.service.name, port.number))
                        outgoing.address = reached_at(port);
            }
    }
}

// ---- what has no effect here
// ---------------------------------------------------------------------

Result<void> check_program_mounts(const PreparedService& prepared) {
    for (const auto& mount : prepared.launch.mounts)
        if (!path_exists(mount.target))
            return fail(ErrorCode::unsupported,
                        fmt::format("Service {}: It is a program and sees this machine's files, "
                                    "where there is no {} to mount on",
                                    prepared.service.name, mount.target),
                        "make it, or run the file in a VM: host_runner run -c FILE");
    return {};
}

/// Takes out of the service what cannot be done, and says it.
Result<void> adapt(PreparedService& prepared, std::vector<std::string>& notices) {
    auto& service = prepared.service;
    std::vector<std::string> missing;
    if (std::exchange(service.memory_limit_bytes, std::nullopt))
        missing.emplace_back("its limit of memory");
    if (std::exchange(service.pids_limit, std::nullopt))
        missing.emplace_back("its limit of processes");
    if (!service.user.empty())
        missing.push_back(fmt::format("its user {}", service.user));
    if (!missing.empty())
        notices.push_back(fmt::format("Service {}: no effect without a VM: {}", service.name,
                                      fmt::join(missing, ", ")));
    if (!prepared.launch.module)
        return check_program_mounts(prepared);
    auto& module = *prepared.launch.module;
    if (prepared.launch.mounts.empty())
        module.root_folder.clear(); // nothing to mount, so no right to mount is needed
    if (!service.health_check)
        return {};
    prepared.check_has_mounts = false; // this machine's folders are not for mounting
    if (!prepared.launch.mounts.empty())
        notices.push_back(fmt::format("Service {}: its health check does not see its volumes here",
                                      service.name));
    for (const auto& port : module.worker.ports)
        if (port.listen_port != port.number)
            notices.push_back(fmt::format("Service {}: its health check finds port {} at {} here",
                                          service.name, port.number, reached_at(port)));
    return {};
}

/// One run of the services.
class NativeRun {
public:
    NativeRun(EventLoop& loop, NativeServices native, std::string program)
        : loop_(loop), native_(std::move(native)), console_(STDOUT_FILENO),
          logs_(join_path(native_.state, "log"), &console_), relay_(loop_, logs_),
          supervisor_(loop_, launcher_, logs_, {std::move(program), std::nullopt, {}},
                      callbacks()) {}

    int run() {
        logs_.say(fmt::format("Development mode: no VM, and no isolation beyond WebAssembly's own. "
                              "Everything runs as "
                              "{}; programs may do all that it may",
                              ::geteuid() == 0 ? "root" : fmt::format("user {}", ::geteuid())));
        logs_.say(fmt::format("Volumes, logs and compiled modules are in {}", native_.state));
        for (const auto& line : native_.notices)
            logs_.say(line);
        for (const auto& line : native_.addresses)
            logs_.say(line);
        if (native_.services.empty()) {
            logs_.say("The compose file names no services");
            return static_cast<int>(ExitCode::success);
        }
        if (auto taken = take_callers(); !taken) {
            logs_.say(fmt::format("error: {}", taken.error().describe()));
            return static_cast<int>(ExitCode::failure);
        }
        supervisor_.start(native_.services);
        if (auto done = loop_.run(); !done) {
            logs_.say(fmt::format("error: {}", done.error().describe()));
            return static_cast<int>(ExitCode::failure);
        }
        return static_cast<int>(exit_code_);
    }

    void on_signal() {
        const bool is_first = !std::exchange(stopping_, true);
        logs_.say(is_first ? "Stopping; a second signal kills what still runs" : "Killing");
        supervisor_.stop([this] { loop_.stop(); });
    }

private:
    Result<void> take_callers() {
        if (!native_.function_socket)
            return {};
        relay_.set_functions(native_.functions);
        return loop_.watch(native_.function_socket.get(), EPOLLIN, [this](std::uint32_t) {
            UniqueFd caller(
                ::accept4(native_.function_socket.get(), nullptr, nullptr, SOCK_CLOEXEC));
            if (!caller)
                return; // it has gone already
            if (auto served = relay_.serve_connection(std::move(caller)); !served)
                logs_.say(served.error().describe());
        });
    }

    ServiceSupervisor::Callbacks callbacks() {
        return {
            .on_change = [](const auto&) {},
            .on_ready = [this] { logs_.say("All services are there"); },
            .on_start_failure = [](const auto&) {}, // it stands in the log already
            .on_all_ended =
                [this] {
                    logs_.say("All services have ended");
                    const auto statuses = supervisor_.statuses();
                    const bool all_good =
                        std::all_of(statuses.begin(), statuses.end(),
                                    [](const auto& one) { return one.exit_code == 0; });
                    exit_code_ = all_good ? ExitCode::success : ExitCode::failure;
                    loop_.stop();
                },
            .on_function_start =
                [this](const std::string& service, const std::string& replica, UniqueFd channel) {
                    relay_.attach(service, replica, std::move(channel));
                },
            .on_function_end =
                [this](const std::string& replica) {
                    relay_.detach(replica);
                }};
    }

    EventLoop& loop_;
    NativeServices native_;
    ForkExecLauncher launcher_;
    Console console_;
    LogStore logs_;
    FunctionRelay relay_;
    ServiceSupervisor supervisor_;
    bool stopping_ = false;
    ExitCode exit_code_ = ExitCode::success;
};

} // namespace

Result<NativeServices> prepare_native(const NativeOptions& options) {
    HR_TRY(const auto compose, spec::load_compose(options.compose_path));
    std::map<std::string, std::string> environment;
    if (!options.env_file.empty()) {
        HR_TRY(environment, spec::load_env_file(options.env_file));
    }
    HR_TRY(auto resolved, spec::resolve_compose(compose, environment));
    HR_TRY(const auto mappings, all_mappings(options, resolved.app, std::move(resolved.ports)));
    NativeServices native;
    HR_TRY(native.state, make_state(options, resolved.app.name));
    HR_TRY(native.lock, lock_state(native.state));
    HR_CHECK(deliver(resolved.files, join_path(native.state, "share/files")));
    GuestPaths paths;
    paths.state = native.state;
    paths.data = native.state;
    HR_TRY(native.services, prepare_services(resolved.app, paths, true, Users::ourselves));
    HR_CHECK(place_ports(native, mappings));
    redirect_outgoing(native.services);
    for (auto& prepared : native.services)
        HR_CHECK(adapt(prepared, native.notices));
    native.functions = functions_of(resolved.app);
    if (!native.functions.empty()) {
        const auto path = join_path(native.state, "functions.sock");
        // Takes callers of functions, with the frames that a VM's invocation ports carry.
        HR_TRY(native.function_socket, listen_unix(path));
        for (const auto& name : native.functions)
            native.addresses.push_back(
                fmt::format("Service {}: host_runner invoke {} {}", name, path, name));
    }
    return native;
}

int run_native(const NativeOptions& options, const std::string& program) {
    const auto give_up = [](const Error& error) {
        static_cast<void>(
            write_all(STDERR_FILENO, fmt::format("guest_agent: {}\n", error.describe())));
        return static_cast<int>(exit_code_for(error.code));
    };
    auto native = prepare_native(options);
    if (!native)
        return give_up(native.error());
    // Before the console's thread, which inherits the blocked signals.
    auto loop = EventLoop::create();
    if (!loop)
        return give_up(loop.error());
    std::unique_ptr<NativeRun> run;
    auto watched = (*loop)->watch_signals({SIGINT, SIGTERM, SIGHUP, SIGPIPE}, [&run](int signal) {
        if (signal != SIGPIPE)
            run->on_signal();
    });
    if (!watched)
        return give_up(watched.error());
    run = std::make_unique<NativeRun>(**loop, std::move(*native), program);
    return run->run();
}

} // namespace host_runner::agent

// SPDX-License-Identifier: Apache-2.0
/// A stand-in for QEMU that the supervisor's tests start as a real process: it speaks QMP, answers
/// one guest API, and ends as its arguments say.
///
///     fake_qemu QMP_SOCKET [NAME=VALUE]...
///
/// stderr=TEXT       printed at once
/// exit=CODE         ends right after that, without QMP
/// then=REASON       after the first query-status: event SHUTDOWN with that reason, exit 0
///                   ("guest-panic" sends GUEST_PANICKED first; "crash" aborts; "enospc" reports
///                   a full disk and goes on)
/// powerdown=, quit=, term=   obey (default) | ignore
/// vcpu=TID          the thread of its vCPU; itself by default
/// guest=SOCKET      serves the guest API there
/// shutdown=         obey (default) | ignore | refuse

#include <array>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <map>
#include <optional>
#include <string>

#include <poll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

namespace {

std::map<std::string, std::string> options;
int qmp_fd = -1;

std::string option(const std::string& name, const std::string& otherwise) {
    const auto found = options.find(name);
    return found == options.end() ? otherwise : found->second;
}

void send_line(const std::string& text) {
    if (qmp_fd >= 0)
        static_cast<void>(!::send(qmp_fd, (text + "\r\n").c_str(), text.size() + 2, MSG_NOSIGNAL));
}

[[noreturn]] void shut_down(const std::string& reason) {
    const bool guest = reason.rfind("guest", 0) == 0;
    send_line(R"({"timestamp":{"seconds":1,"microseconds":0},"event":"SHUTDOWN","data":{"guest":)" +
              std::string(guest ? "true" : "false") + R"(,"reason":")" + reason + "\"}}");
    std::exit(0); // NOLINT(concurrency-mt-unsafe): one thread
}

int listen_on(const std::string& path) {
    ::unlink(path.c_str());
    const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(static_cast<char*>(address.sun_path), path.c_str(), sizeof address.sun_path - 1);
    if (::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
        ::listen(fd, 4) != 0)
        std::exit(3); // NOLINT(concurrency-mt-unsafe)
    return fd;
}

/// What follows `"id":` up to the next comma or brace, so that the answer can repeat it.
std::string id_of(const std::string& line) {
    const auto at = line.find("\"id\"");
    if (at == std::string::npos)
        return {};
    const auto begin = line.find(':', at) + 1;
    return ",\"id\":" + line.substr(begin, line.find_first_of(",}", begin) - begin);
}

void after_start() {
    const auto then = option("then", "");
    if (then.empty())
        return;
    options.erase("then");
    if (then == "crash")
        std::abort();
    if (then == "enospc")
        return send_line(
            R"({"timestamp":{"seconds":1,"microseconds":0},"event":"BLOCK_IO_ERROR","data":)"
            R"({"device":"hd1","operation":"write","action":"stop","nospace":true,)"
            R"("reason":"No space left on device"}})");
    if (then == "guest-panic")
        send_line(
            R"({"timestamp":{"seconds":1,"microseconds":0},"event":"GUEST_PANICKED","data":)"
            R"({"action":"poweroff","info":{"type":"tdx","error-code":1,"message":"bad luck"}}})");
    shut_down(then);
}

void on_command(const std::string& line) {
    const auto has = [&](const char* word) {
        return line.find(word) != std::string::npos;
    };
    const auto id = id_of(line);
    if (has("query-status")) {
        send_line(R"({"return":{"status":"running","running":true})" + id + "}");
        return after_start();
    }
    if (has("query-cpus-fast")) {
        send_line(R"({"return":[{"cpu-index":0,"thread-id":)" +
                  option("vcpu", std::to_string(::getpid())) + "}]" + id + "}");
        return;
    }
    send_line(R"({"return":{})" + id + "}");
    if (has("system_powerdown") && option("powerdown", "obey") == "obey")
        shut_down("guest-shutdown");
    if (has("\"quit\"") && option("quit", "obey") == "obey")
        shut_down("host-qmp-quit");
    if (has("\"cont\""))
        std::cerr << "resumed" << std::endl;
}

void serve_guest(int listener) {
    const int fd = ::accept(listener, nullptr, nullptr);
    std::string request;
    std::array<char, 4096> buffer{};
    while (request.find("\r\n\r\n{}") == std::string::npos) {
        const auto count = ::read(fd, buffer.data(), buffer.size());
        if (count <= 0)
            break;
        request.append(buffer.data(), static_cast<std::size_t>(count));
    }
    std::string id;
    const auto at = request.find("x-request-id: ");
    if (at != std::string::npos)
        id = request.substr(at, request.find("\r\n", at) + 2 - at);
    const bool stop = request.find("/api/Shutdown") != std::string::npos;
    const auto how = option("shutdown", "obey");
    const bool refused = stop && how == "refuse";
    const std::string body = stop ? "null"
                             : request.find("/api/Info") != std::string::npos
                                 ? R"({"version":"fake"})"
                                 : "[]";
    const std::string answer =
        std::string(refused ? "HTTP/1.1 500 No\r\n" : "HTTP/1.1 200 OK\r\n") + id +
        "content-length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
    static_cast<void>(!::send(fd, answer.c_str(), answer.size(), MSG_NOSIGNAL));
    ::close(fd);
    if (stop && how == "obey")
        shut_down("guest-shutdown");
}

/// With QEMU's own command line it is QEMU 10.1: `-qmp stdio` is asked what it can do and has every
/// type; `-qmp unix:PATH,...` is a VM whose guest powers off at once.
/// @return the path of the socket; nullopt: the questions are answered
std::optional<std::string> qmp_of_command_line(int argc, char** argv) {
    std::string qmp;
    for (int i = 1; i + 1 < argc; ++i)
        if (std::string(argv[i]) == "-qmp")
            qmp = argv[i + 1];
    if (qmp != "stdio")
        return qmp.empty() ? argv[1] : qmp.substr(5, qmp.find(',') - 5);
    std::cout << R"({"QMP":{"version":{"qemu":{"micro":0,"minor":1,"major":10},"package":""},)"
              << R"("capabilities":[]}})" << std::endl;
    for (std::string line; std::getline(std::cin, line);) {
        const bool is_version = line.find("query-version") != std::string::npos;
        std::cout << (is_version
                          ? R"({"return":{"qemu":{"micro":0,"minor":1,"major":10},"package":""})"
                          : R"({"return":[])")
                  << id_of(line) << "}" << std::endl;
    }
    return std::nullopt;
}

} // namespace

int main(int argc, char** argv) {
    const auto socket = qmp_of_command_line(argc, argv);
    if (!socket)
        return 0;
    if (*socket != argv[1])
        options["then"] = "guest-shutdown";
    for (int i = 2; i < argc && *socket == argv[1]; ++i) {
        const std::string text = argv[i];
        const auto equals = text.find('=');
        options[text.substr(0, equals)] = text.substr(equals + 1);
    }
    std::cerr << option("stderr", "") << std::flush;
    if (options.count("exit") != 0)
        return std::stoi(options["exit"]);

    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    ::sigprocmask(SIG_BLOCK, &signals, nullptr);
    const int signal_fd = ::signalfd(-1, &signals, SFD_CLOEXEC);
    const int guest = options.count("guest") != 0 ? listen_on(options["guest"]) : -1;
    const int listener = listen_on(*socket);
    std::string input;
    for (;;) {
        std::array<pollfd, 4> waiting{{{signal_fd, POLLIN, 0},
                                       {qmp_fd < 0 ? listener : -1, POLLIN, 0},
                                       {qmp_fd, POLLIN, 0},
                                       {guest, POLLIN, 0}}};
        ::poll(waiting.data(), waiting.size(), -1);
        if (waiting[0].revents != 0) {
            signalfd_siginfo info{};
            static_cast<void>(!::read(signal_fd, &info, sizeof info));
            if (option("term", "obey") == "obey")
                shut_down("host-signal");
        }
        if (waiting[1].revents != 0) {
            qmp_fd = ::accept(listener, nullptr, nullptr);
            send_line(R"({"QMP":{"version":{"qemu":{"micro":0,"minor":2,"major":7},"package":""},)"
                      R"("capabilities":["oob"]}})");
        }
        if (waiting[2].revents != 0) {
            std::array<char, 4096> buffer{};
            const auto count = ::read(qmp_fd, buffer.data(), buffer.size());
            if (count <= 0) {
                ::close(qmp_fd);
                qmp_fd = -1;
                continue;
            }
            input.append(buffer.data(), static_cast<std::size_t>(count));
            for (auto end = input.find('\n'); end != std::string::npos; end = input.find('\n')) {
                const auto line = input.substr(0, end);
                input.erase(0, end + 1);
                on_command(line);
            }
        }
        if (waiting[3].revents != 0)
            serve_guest(guest);
    }
}

// SPDX-License-Identifier: Apache-2.0
#include "host_runner/agent/native.hpp"

#include <array>
#include <csignal>
#include <filesystem>
#include <regex>

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <fmt/format.h>
#include <gmock/gmock.h>

#include "fakes/sanitizer.hpp"
#include "fakes/temporary_directory.hpp"
#include "host_runner/base/files.hpp"
#include "host_runner/protocol/invocation.hpp"

namespace host_runner::agent {
namespace {

using namespace std::chrono_literals;
using testing::Contains;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

constexpr auto patience = 60s;
const std::string command_module = HOST_RUNNER_SOURCE_DIR "/tests/fixtures/wasm/deeds_wasi.wasm";
const std::string site_module = HOST_RUNNER_SOURCE_DIR "/tests/fixtures/wasm/site.wasm";
const std::string http_module = HOST_RUNNER_SOURCE_DIR "/tests/fixtures/wasm_http/service.wasm";

/// 127.0.0.1 at a port, or at any free one.
struct Socket {
    UniqueFd fd{::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    sockaddr_in address{};
    explicit Socket(std::uint16_t port = 0) {
        address.sin_family = AF_INET;
        address.sin_port = htons(port);
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    }
    sockaddr* any() {
        return reinterpret_cast<sockaddr*>(&address);
    }
    std::uint16_t listen() {
        socklen_t size = sizeof address;
        EXPECT_EQ(::bind(fd.get(), any(), size), 0);
        EXPECT_EQ(::listen(fd.get(), 1), 0);
        EXPECT_EQ(::getsockname(fd.get(), any(), &size), 0);
        return ntohs(address.sin_port);
    }
};

class Native : public testing::Test {
protected:
    void write(const std::string& services) {
        ASSERT_TRUE(write_file_atomic(options.compose_path, services, 0644));
    }
    std::string services_of(const std::string& service) {
        return fmt::format("services:\n  one: {}\nvolumes: {{data: }}\n", service);
    }
    Error refused() {
        const auto native = prepare_native(options);
        EXPECT_FALSE(native);
        return native ? Error{} : native.error();
    }
    tests::TemporaryDirectory folder;
    NativeOptions options{folder / "compose.yaml", "", {}, folder / "state"};
};

TEST_F(Native, shows_the_place_of_a_mistake) {
    write("services:\n  one:\n    imagine: x\n");
    EXPECT_THAT(refused().message, HasSubstr("compose.yaml:3:5: "));
    options.compose_path = folder / "absent.yaml";
    EXPECT_EQ(refused().code, ErrorCode::not_found);
}

TEST_F(Native, listens_where_the_port_is_published_and_keeps_its_name) {
    write(services_of("{image: " + site_module + ", ports: ['80', '127.0.0.2:0:443']}"));
    const auto native = prepare_native(options);
    ASSERT_TRUE(native) << native.error().describe();
    const auto& ports = native->services.at(0).launch.module->worker.ports;
    ASSERT_EQ(ports.size(), 2U);
    EXPECT_EQ(ports[0].number, 80);
    EXPECT_EQ(ports[0].address, "127.0.0.1");
    EXPECT_GT(ports[0].listen_port, 0);
    EXPECT_EQ(ports[1].address, "127.0.0.2");
    EXPECT_THAT(native->addresses, Contains(fmt::format("Service one: port 80 is 127.0.0.1:{}",
                                                        ports[0].listen_port)));
    // Others cannot have it meanwhile.
    Socket other(ports[0].listen_port);
    EXPECT_NE(::bind(other.fd.get(), other.any(), sizeof other.address), 0);
}

TEST_F(Native, prefers_the_mapping_that_is_asked_for) {
    write(services_of("{image: " + http_module + ", ports: ['1:80', '2:80']}"));
    options.ports = {"tcp::0:80"};
    const auto native = prepare_native(options);
    ASSERT_TRUE(native) << native.error().describe();
    EXPECT_THAT(native->notices, IsEmpty());
    EXPECT_THAT(native->addresses, Contains(HasSubstr("http://127.0.0.1:")));
    options.ports = {"tcp::0:81"};
    EXPECT_THAT(refused().message, HasSubstr("no WebAssembly service has the port 81"));
    options.ports = {"nonsense"};
    EXPECT_EQ(refused().code, ErrorCode::invalid_argument);
}

TEST_F(Native, says_which_port_is_taken) {
    Socket taken;
    const auto port = taken.listen();
    write(services_of(fmt::format("{{image: {}, ports: ['{}:80']}}", site_module, port)));
    const auto error = refused();
    EXPECT_EQ(error.code, ErrorCode::already_exists);
    EXPECT_THAT(error.message, HasSubstr(fmt::format("Cannot open port {}", port)));
}

TEST_F(Native, refuses_two_services_with_one_port) {
    write(fmt::format("services:\n  a: {{image: {0}, ports: ['80']}}\n"
                      "  b: {{image: {0}, ports: ['80']}}\n",
                      site_module));
    EXPECT_THAT(refused().message, HasSubstr("a and b both have the port 80"));
}

TEST_F(Native, leads_requests_between_services_to_where_they_are) {
    write(fmt::format("services:\n  web: {{image: {0}, ports: ['80'], x-outgoing: ['db:81', "
                      "'192.0.2.1:80']}}\n  db: {{image: {0}, ports: ['81']}}\n",
                      http_module));
    const auto native = prepare_native(options);
    ASSERT_TRUE(native) << native.error().describe();
    const auto& outgoing = native->services.at(0).launch.module->worker.outgoing;
    const auto& db = native->services.at(1).launch.module->worker.ports.at(0);
    EXPECT_EQ(outgoing.at(0).address, fmt::format("127.0.0.1:{}", db.listen_port));
    EXPECT_EQ(outgoing.at(1).address, "192.0.2.1:80");
}

TEST_F(Native, says_what_has_no_effect) {
    write(services_of("{command: [sleep, '9'], mem_limit: 8m, pids_limit: 3, user: somebody, "
                      "ports: ['8080:80']}"));
    const auto native = prepare_native(options);
    ASSERT_TRUE(native) << native.error().describe();
    EXPECT_THAT(native->notices,
                testing::ElementsAre(HasSubstr("8080:80 is not forwarded: without a VM a program"),
                                     HasSubstr("its limit of memory, its limit of processes, its "
                                               "user somebody")));
    EXPECT_FALSE(native->services.at(0).service.memory_limit_bytes);
    EXPECT_FALSE(native->services.at(0).launch.user);
}

TEST_F(Native, says_what_a_health_check_does_not_find) {
    write(services_of("{image: " + site_module +
                      ", ports: ['80', '81'], volumes: ['data:/data'], healthcheck: {test: "
                      "[CMD, 'true']}}"));
    const auto native = prepare_native(options);
    ASSERT_TRUE(native) << native.error().describe();
    EXPECT_FALSE(native->services.at(0).check_has_mounts);
    EXPECT_THAT(native->notices, Contains(HasSubstr("does not see its volumes")));
    EXPECT_THAT(native->notices, Contains(HasSubstr("finds port 80 at 127.0.0.1:")));
}

TEST_F(Native, mounts_nothing_for_a_program_where_there_is_nothing) {
    const auto target = folder / "nowhere";
    write(services_of("{command: ['true'], volumes: ['data:" + target + "']}"));
    const auto error = refused();
    EXPECT_EQ(error.code, ErrorCode::unsupported);
    EXPECT_THAT(error.message, HasSubstr(target));
    EXPECT_FALSE(path_exists(target));
    ASSERT_TRUE(make_directories(target));
    EXPECT_TRUE(prepare_native(options));
}

TEST_F(Native, needs_no_right_to_mount_without_mounts) {
    write(services_of("{image: " + command_module + "}"));
    auto native = prepare_native(options);
    ASSERT_TRUE(native);
    EXPECT_EQ(native->services.at(0).launch.module->root_folder, "");
    native->lock.reset();
    write(services_of("{image: " + command_module + ", volumes: ['data:/data']}"));
    native = prepare_native(options);
    ASSERT_TRUE(native) << native.error().describe();
    EXPECT_NE(native->services.at(0).launch.module->root_folder, "");
}

TEST_F(Native, keeps_to_one_folder_and_to_itself_there) {
    options.state.clear();
    write("name: shop\n" + services_of("{image: " + site_module + ", volumes: ['data:/data']}"));
    const auto native = prepare_native(options);
    ASSERT_TRUE(native) << native.error().describe();
    EXPECT_EQ(native->state, folder / ".host-runner-dev/shop");
    EXPECT_TRUE(path_exists(folder / ".host-runner-dev/shop/volumes/data"));
    EXPECT_THAT(*list_directory(folder.path()),
                testing::ElementsAre(".host-runner-dev", "compose.yaml"));
    const auto error = refused();
    EXPECT_EQ(error.code, ErrorCode::already_exists);
    EXPECT_THAT(error.hint, HasSubstr("--state"));
}

TEST_F(Native, hands_over_the_files_of_now) {
    write(services_of("{image: " + site_module + ", volumes: ['./motd:/etc/motd:ro']}"));
    ASSERT_TRUE(write_file_atomic(folder / "motd", "old"));
    ASSERT_TRUE(prepare_native(options));
    ASSERT_TRUE(write_file_atomic(folder / "motd", "new"));
    const auto native = prepare_native(options);
    ASSERT_TRUE(native) << native.error().describe();
    const auto& mount = native->services.at(0).launch.mounts.at(0);
    EXPECT_EQ(read_file(mount.source, 10).value(), "new");
    EXPECT_TRUE(mount.read_only);
    EXPECT_EQ(list_directory(folder / "state/share/files")->size(), 2U);
}

/// `guest_agent --dev` in a child of its own, as an ordinary user.
class NativeRun : public Native {
protected:
    void SetUp() override {
        if (tests::has_sanitizer)
            GTEST_SKIP() << "a sanitizer makes calls that a worker may not";
        if (::geteuid() == 0) {
            // Root is what it must not need. That user reaches neither the build nor our folder.
            user = ProcessSpec::User{65534, 65534, {}};
            program = folder / "guest_agent";
            std::filesystem::copy_file(GUEST_AGENT, program);
            ASSERT_EQ(::chown(folder.path().c_str(), user->uid, user->gid), 0);
        }
    }
    void TearDown() override {
        if (child.pid <= 0)
            return;
        ::kill(child.pid, SIGKILL);
        static_cast<void>(reap(child));
    }
    void start() {
        std::array<int, 2> fds{};
        ASSERT_EQ(::pipe2(fds.data(), O_CLOEXEC), 0);
        output.reset(fds[0]);
        const UniqueFd writer(fds[1]);
        ProcessSpec spec;
        spec.argv = {program, "--dev", options.compose_path, "--state", options.state};
        spec.stdout_fd = writer.get();
        spec.stderr_fd = writer.get();
        spec.user = user;
        ForkExecLauncher launcher;
        auto launched = launcher.launch(spec);
        ASSERT_TRUE(launched) << launched.error().describe();
        child = std::move(*launched);
        seen.clear();
    }
    /// What the expression's group holds in the output, once it is there.
    std::string wait_for(const std::string& expression) {
        std::array<char, 4096> buffer{};
        std::smatch match;
        while (!std::regex_search(seen, match, std::regex(expression))) {
            const auto count = ::read(output.get(), buffer.data(), buffer.size());
            if (count <= 0) {
                ADD_FAILURE() << "No '" << expression << "' in:\n" << seen;
                return "";
            }
            seen.append(buffer.data(), static_cast<std::size_t>(count));
        }
        return match.size() > 1 ? match[1].str() : "";
    }
    ExitStatus wait_for_end() {
        const auto rest = read_all(output.get(), 1 << 20);
        seen += rest.value_or("");
        const auto status = wait_for_exit(child, patience);
        EXPECT_TRUE(status) << seen;
        child.pid = -1;
        return status.value_or(ExitStatus{});
    }
    /// A service with mounts needs a user namespace, which not every machine gives.
    bool may_mount() {
        ProcessSpec spec;
        spec.argv = {"unshare", "--user", "--map-current-user", "--mount", "true"};
        spec.user = user;
        ForkExecLauncher launcher;
        const auto tried = run_captured(launcher, spec, patience);
        return tried && tried->status.exited && tried->status.code == 0;
    }
    static std::string get(std::uint16_t port) {
        Socket client(port);
        if (::connect(client.fd.get(), client.any(), sizeof client.address) != 0)
            return "";
        static_cast<void>(
            write_all(client.fd.get(), "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
        return read_all(client.fd.get(), 1 << 16).value_or("");
    }
    std::optional<ProcessSpec::User> user;
    std::string program = GUEST_AGENT;
    ChildProcess child;
    UniqueFd output;
    std::string seen;
};

TEST_F(NativeRun, runs_a_module_to_its_end_and_says_what_it_is) {
    write(services_of("{image: " + command_module + ", command: [arguments, two words]}"));
    start();
    EXPECT_EQ(wait_for_end().code, 0) << seen;
    EXPECT_THAT(seen, HasSubstr("no isolation beyond WebAssembly"));
    EXPECT_THAT(seen, HasSubstr("one | deeds_wasi.wasm\none | arguments\none | two words\n"));
    EXPECT_THAT(seen, HasSubstr("All services have ended"));
}

TEST_F(NativeRun, fails_when_a_service_does) {
    write(services_of("{image: " + command_module + ", command: [exit, '3']}"));
    start();
    EXPECT_EQ(wait_for_end().code, 1) << seen;
    write(services_of("{command: [no-such-program]}"));
    start();
    EXPECT_EQ(wait_for_end().code, 1) << seen;
    EXPECT_THAT(seen, HasSubstr("There is no program no-such-program"));
}

TEST_F(NativeRun, serves_at_the_address_that_it_says_and_keeps_volumes) {
    if (!may_mount())
        GTEST_SKIP() << "this machine gives ordinary users no user namespaces";
    ASSERT_TRUE(write_file_atomic(folder / "motd", "welcome", 0644));
    write(services_of("{image: " + site_module +
                      ", ports: ['80'], volumes: ['data:/data', './motd:/etc/motd:ro'], "
                      "environment: {COUNTER: /data/visits, GREETING: Hello}}"));
    for (const auto* visits : {"Visits: 1\n", "Visits: 2\n"}) {
        start();
        const auto port = wait_for(R"(port 80 is 127\.0\.0\.1:(\d+)\n)");
        wait_for("Listening on descriptor 4"); // 3 is the folder /, as in a VM
        EXPECT_THAT(get(static_cast<std::uint16_t>(std::stoi(port))), HasSubstr(visits));
        ASSERT_EQ(::kill(child.pid, SIGINT), 0);
        EXPECT_EQ(wait_for_end().code, 0) << seen;
        EXPECT_THAT(seen, HasSubstr("Stopping service one"));
        EXPECT_THAT(seen, Not(HasSubstr("Killing")));
    }
    EXPECT_EQ(read_file(folder / "state/volumes/data/visits", 10).value(), "2\n");
}

TEST_F(NativeRun, shows_a_module_its_mounts_and_nothing_else) {
    if (!may_mount())
        GTEST_SKIP() << "this machine gives ordinary users no user namespaces";
    ASSERT_TRUE(write_file_atomic(folder / "motd", "welcome\n", 0644));
    const auto mounted = [&](const std::string& deed) {
        return fmt::format("{{image: {}, command: [{}], volumes: ['data:/data', "
                           "'./motd:/etc/motd:ro']}}",
                           command_module, deed);
    };
    write(fmt::format("services:\n  list: {}\n  copy: {}\n  out: {}\n  root: {}\n"
                      "volumes: {{data: }}\n",
                      mounted("list, /"), mounted("copy, /etc/motd"), mounted("copy, /etc/passwd"),
                      mounted("append, /file, x")));
    start();
    EXPECT_EQ(wait_for_end().code, 1);
    EXPECT_THAT(seen, HasSubstr("list | data\n"));
    EXPECT_THAT(seen, HasSubstr("list | etc\n"));
    EXPECT_THAT(seen, Not(HasSubstr("list | usr\n")));
    EXPECT_THAT(seen, HasSubstr("copy | welcome\n"));
    EXPECT_THAT(seen, testing::ContainsRegex("out \\| .*No such file"));
    EXPECT_THAT(seen, testing::ContainsRegex("root \\| .*Read-only"));
}

TEST_F(NativeRun, answers_http) {
    write(services_of("{image: " + http_module + ", ports: ['80']}"));
    start();
    const auto port = wait_for(R"(port 80 is http://127\.0\.0\.1:(\d+)\n)");
    wait_for("All services are there");
    EXPECT_THAT(get(static_cast<std::uint16_t>(std::stoi(port))), HasSubstr("HTTP/1.1 200"));
}

TEST_F(NativeRun, has_its_functions_called_by_a_socket_that_only_its_user_reaches) {
    write(services_of("{image: " + command_module + ", x-world: function}"));
    start();
    const auto path = wait_for(R"(host_runner invoke (\S+) \w+\n)");
    wait_for("All services are there");
    struct stat status {};
    ASSERT_EQ(::stat(path.c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777U, 0600U);
    const UniqueFd caller(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(static_cast<char*>(address.sun_path), sizeof address.sun_path - 1);
    ASSERT_EQ(::connect(caller.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address),
              0);
    using protocol::FrameKind;
    protocol::InvokeRequest request;
    request.function = "one";
    request.arguments = {"exit", "9"};
    ASSERT_TRUE(write_all(caller.get(),
                          protocol::encode_frame({FrameKind::hello, 0, "0123456789abcdef"}) +
                              protocol::encode_frame({FrameKind::request, 1,
                                                      *protocol::encode_invoke_request(request)})));
    protocol::FrameReader reader;
    for (std::array<char, 4096> buffer{};;) {
        const auto count = ::read(caller.get(), buffer.data(), buffer.size());
        ASSERT_GT(count, 0);
        reader.push({buffer.data(), static_cast<std::size_t>(count)});
        auto frame = reader.next();
        while (frame && *frame && (*frame)->kind != FrameKind::result)
            frame = reader.next();
        ASSERT_TRUE(frame) << frame.error().describe();
        if (!*frame)
            continue;
        EXPECT_EQ(protocol::decode_invoke_result((*frame)->payload)->code, 9);
        break;
    }
}

TEST_F(NativeRun, serves_one_port_with_all_replicas) {
    write(services_of("{image: " + site_module + ", ports: ['80'], scale: 3}"));
    start();
    const auto port = wait_for(R"(port 80 is 127\.0\.0\.1:(\d+)\n)");
    for (const auto* name : {"one-1", "one-2", "one-3"})
        wait_for(std::string(name) + " \\| Listening on descriptor 3");
    wait_for("All services are there");
    for (int i = 0; i < 20; ++i)
        EXPECT_THAT(get(static_cast<std::uint16_t>(std::stoi(port))), HasSubstr("Visits: 1\n"));
    ASSERT_EQ(::kill(child.pid, SIGINT), 0);
    EXPECT_EQ(wait_for_end().code, 0) << seen;
    EXPECT_THAT(seen, HasSubstr("Stopping service one-3"));
}

TEST_F(NativeRun, keeps_to_dependencies_and_restarts) {
    write("services:\n"
          "  web:\n"
          "    command: [sh, -c, 'echo second; exit 0']\n"
          "    depends_on: {job: {condition: service_completed_successfully}}\n"
          "  job:\n"
          "    command: [sh, -c, 'echo first']\n"
          "  flaky:\n"
          "    command: [sh, -c, 'echo again; exit 1']\n"
          "    restart: on-failure:2\n");
    start();
    EXPECT_EQ(wait_for_end().code, 1);
    const auto first = seen.find("job | first\n");
    const auto second = seen.find("web | second\n");
    ASSERT_NE(second, std::string::npos) << seen;
    EXPECT_LT(first, second);
    EXPECT_EQ(std::count(seen.begin(), seen.end(), '|'), 5) << seen;
}

TEST_F(NativeRun, kills_at_the_second_signal) {
    write(services_of("{command: [sh, -c, \"trap '' TERM; echo up; while :; do sleep 0.01; "
                      "done\"], stop_grace_period: 1h}"));
    start();
    wait_for("one \\| up");
    ASSERT_EQ(::kill(child.pid, SIGINT), 0);
    wait_for("Stopping service one");
    ASSERT_EQ(::kill(child.pid, SIGTERM), 0);
    EXPECT_EQ(wait_for_end().code, 0) << seen;
    EXPECT_THAT(seen, HasSubstr("ended with signal 9"));
}

TEST_F(NativeRun, leaves_no_worker_when_it_is_killed) {
    if (!may_mount())
        GTEST_SKIP() << "this machine gives ordinary users no user namespaces";
    write(
        services_of("{image: " + command_module + ", command: [sleep], volumes: ['data:/data']}"));
    start();
    const auto pid = wait_for("Service one runs, pid (\\d+)");
    const UniqueFd worker(
        static_cast<int>(::syscall(SYS_pidfd_open, static_cast<pid_t>(std::stoi(pid)), 0)));
    ASSERT_TRUE(worker);
    ASSERT_EQ(::kill(child.pid, SIGKILL), 0);
    pollfd ended{worker.get(), POLLIN, 0};
    EXPECT_EQ(::poll(&ended, 1, 60'000), 1);
}

TEST_F(NativeRun, says_like_compose_check_what_is_wrong) {
    write("services:\n  one: {command: [x], prots: [1]}\n");
    start();
    EXPECT_EQ(wait_for_end().code, 2);
    EXPECT_THAT(seen, HasSubstr("guest_agent: " + options.compose_path + ":2:23: "));
}

} // namespace
} // namespace host_runner::agent

// SPDX-License-Identifier: Apache-2.0
//
// Calls of a function as the host makes them (FunctionSession, the agent's relay, a real worker),
// beside the bare thing: the same module, called in this process. JSON on stdout;
// tests/bench/function_bench.py runs it and draws it.
#include <algorithm>
#include <array>
#include <chrono>
#include <functional>
#include <iostream>
#include <string>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "host_runner/agent/function_relay.hpp"
#include "host_runner/base/files.hpp"
#include "host_runner/base/process.hpp"
#include "host_runner/instance/function_session.hpp"
#include "host_runner/wasm/engine.hpp"
#include "host_runner/wasm/wasi/context.hpp"
#include "host_runner/wasm/wasi/preview1.hpp"
#include "host_runner/wasm/worker/request.hpp"

namespace {

using namespace host_runner;
using Clock = std::chrono::steady_clock;

constexpr std::string_view input = "[1, 2.5, 4, 8, 16]";
constexpr std::string_view answer = "{\"count\":5,\"sum\":31.5,\"smallest\":1,\"largest\":16}\n";
constexpr std::uint64_t memory_bytes = std::uint64_t{4} << 20U;
constexpr std::uint32_t places = 8;

template <class T>
T need(Result<T> result) {
    if (!result) {
        std::cerr << result.error().describe() << '\n';
        std::exit(1);
    }
    if constexpr (!std::is_void_v<T>)
        return std::move(*result);
}

void insist(bool is_so, const std::string& what) {
    if (!is_so) {
        std::cerr << "It went wrong: " << what << '\n';
        std::exit(1);
    }
}

double microseconds_since(Clock::time_point start) {
    return std::chrono::duration<double, std::micro>(Clock::now() - start).count();
}

struct Round {
    double calls_per_second = 0;
    double p50_us = 0;
    double p99_us = 0;
};

Round round_of(std::vector<double> times, double whole_us) {
    std::sort(times.begin(), times.end());
    return {static_cast<double>(times.size()) / whole_us * 1e6, times[times.size() / 2],
            times[times.size() * 99 / 100]};
}

// ---- bare

struct Bare {
    explicit Bare(std::string_view artifact)
        : engine(need(wasm::Engine::make({.places = places, .max_memory_bytes = memory_bytes}))),
          program(need(need(engine.make_linker(wasm::wasi::preview1_functions()))
                           .bind(need(engine.load(artifact))))) {}

    void call() const {
        auto output = std::make_shared<wasm::wasi::Output>(wasm::wasi::OutputOptions{});
        wasm::wasi::ContextOptions options;
        options.arguments = {"sum.wasm"};
        options.files.emplace_back(wasm::wasi::BytesIn{std::string(input)});
        options.files.emplace_back(
            wasm::wasi::CaptureOut{output, wasm::wasi::OutputStream::standard_output});
        options.files.emplace_back(
            wasm::wasi::CaptureOut{output, wasm::wasi::OutputStream::standard_error});
        const auto context = need(wasm::wasi::Context::create(std::move(options)));
        wasm::CallRequest request;
        request.limits.memory_bytes = memory_bytes;
        request.deadline.at = Clock::now() + std::chrono::seconds(30);
        request.state = context.get();
        need(engine.call(program, request));
        insist(output->bytes(wasm::wasi::OutputStream::standard_output) == answer, "a bare call");
    }

    [[nodiscard]] Round round(std::size_t side_by_side, std::size_t calls) const {
        std::vector<std::vector<double>> times(side_by_side);
        std::vector<std::thread> threads;
        const auto start = Clock::now();
        for (auto& mine : times)
            threads.emplace_back([&, this] {
                for (std::size_t i = 0; i < calls / side_by_side; ++i) {
                    const auto before = Clock::now();
                    call();
                    mine.push_back(microseconds_since(before));
                }
            });
        for (auto& thread : threads)
            thread.join();
        const auto whole = microseconds_since(start);
        std::vector<double> all;
        for (const auto& mine : times)
            all.insert(all.end(), mine.begin(), mine.end());
        return round_of(std::move(all), whole);
    }

    wasm::Engine engine;
    wasm::Program program;
};

// ---- as the host calls

UniqueFd in_memory(std::string_view bytes) {
    UniqueFd file(::memfd_create("bench", MFD_CLOEXEC));
    need(write_all(file.get(), bytes));
    ::lseek(file.get(), 0, SEEK_SET);
    return file;
}

std::array<UniqueFd, 2> pair_of(int type) {
    std::array<int, 2> fds{};
    insist(::socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, fds.data()) == 0, "socketpair");
    return {UniqueFd(fds[0]), UniqueFd(fds[1])};
}

/// The worker, as the agent starts it, and the agent's part on a thread of its own.
class Guest {
public:
    Guest(const std::string& program, std::string_view artifact, std::string socket)
        : socket_(std::move(socket)) {
        wasm::worker::Request request;
        request.world = protocol::World::function;
        request.artifact_fd = 3;
        request.report_fd = 4;
        request.channel_fd = 5;
        request.arguments = {"sum.wasm"};
        request.memory_bytes = memory_bytes;
        request.calls.calls = places;
        const auto file = in_memory(artifact);
        auto channel = pair_of(SOCK_SEQPACKET);
        auto report = pair_of(SOCK_STREAM);
        ProcessSpec spec;
        spec.argv = {program, "worker", wasm::worker::encode_request(request)};
        spec.stderr_fd = STDERR_FILENO;
        spec.pass_fds = {{3, file.get()}, {4, report[1].get()}, {5, channel[1].get()}};
        child_ = need(launcher_.launch(spec));
        report[1].reset();
        char byte = 0;
        insist(::read(report[0].get(), &byte, 1) == 0, "the worker's start");
        relay_.set_functions({"sum"});
        relay_.attach("sum", "sum", std::move(channel[0]));
        listen();
        thread_ = std::thread([this] { need(loop_->run()); });
    }
    Guest(const Guest&) = delete;
    Guest& operator=(const Guest&) = delete;
    ~Guest() {
        loop_->post([this] { loop_->stop(); });
        thread_.join();
        ::kill(child_.pid, SIGKILL);
        static_cast<void>(reap(child_));
    }

private:
    void listen() {
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        socket_.copy(static_cast<char*>(address.sun_path), sizeof address.sun_path - 1);
        listener_.reset(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
        insist(::bind(listener_.get(), reinterpret_cast<const sockaddr*>(&address),
                      sizeof address) == 0 &&
                   ::listen(listener_.get(), 8) == 0,
               "listening on " + socket_);
        need(loop_->watch(listener_.get(), EPOLLIN, [this](std::uint32_t) {
            need(relay_.serve_connection(
                UniqueFd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC))));
        }));
    }

    std::string socket_;
    std::unique_ptr<EventLoop> loop_ = need(EventLoop::create());
    agent::LogStore logs_{socket_ + ".log", nullptr};
    agent::FunctionRelay relay_{*loop_, logs_};
    ForkExecLauncher launcher_;
    ChildProcess child_;
    UniqueFd listener_;
    std::thread thread_;
};

/// Keeps `side_by_side` calls going until all are done.
class Host {
public:
    explicit Host(const std::string& socket)
        : session_(
              need(instance::FunctionSession::open(*loop_, socket, std::chrono::seconds(10)))) {}

    Round round(std::size_t side_by_side, std::size_t calls) {
        times_.clear();
        left_ = calls;
        running_ = 0;
        const auto start = Clock::now();
        for (std::size_t i = 0; i < side_by_side; ++i)
            begin();
        need(loop_->run());
        return round_of(times_, microseconds_since(start));
    }

private:
    void begin() {
        if (left_ == 0) {
            if (running_ == 0)
                loop_->stop();
            return;
        }
        --left_;
        ++running_;
        struct Call {
            Clock::time_point start = Clock::now();
            std::string output;
        };
        const auto call = std::make_shared<Call>();
        instance::FunctionSession::Handlers handlers;
        handlers.on_output = [call](instance::FunctionSession::Stream, std::string_view bytes) {
            call->output += bytes;
        };
        handlers.on_result = [this, call](const protocol::InvokeResult& result) {
            insist(result.status == protocol::CallStatus::exit && call->output == answer,
                   "a call: " + result.message);
            times_.push_back(microseconds_since(call->start));
            --running_;
            begin();
        };
        const auto number = need(session_->begin({.function = "sum"}, std::move(handlers)));
        session_->write_input(number, input);
        session_->end_input(number);
    }

    std::unique_ptr<EventLoop> loop_ = need(EventLoop::create());
    std::unique_ptr<instance::FunctionSession> session_;
    std::vector<double> times_;
    std::size_t left_ = 0;
    std::size_t running_ = 0;
};

/// Median, least and most of the rounds.
std::string summary(const std::vector<Round>& rounds) {
    const auto row = [&](double Round::*member, const char* name) {
        std::vector<double> values;
        for (const auto& round : rounds)
            values.push_back(round.*member);
        std::sort(values.begin(), values.end());
        return fmt::format(R"("{}": {{"median": {:.1f}, "min": {:.1f}, "max": {:.1f}}})", name,
                           values[values.size() / 2], values.front(), values.back());
    };
    return fmt::format("{{{}, {}, {}}}", row(&Round::calls_per_second, "calls_per_second"),
                       row(&Round::p50_us, "p50_us"), row(&Round::p99_us, "p99_us"));
}

} // namespace

int main(int argc, char** argv) {
    insist(argc == 4, "usage: function_bench GUEST_AGENT MODULE SOCKET");
    constexpr std::size_t rounds = 7;
    constexpr std::size_t calls = 4000;
    const auto artifact = need(wasm::compile(need(read_file(argv[2], 1 << 20)))); // NOLINT
    const Bare bare(artifact);
    const Guest guest(argv[1], artifact, argv[3]); // NOLINT
    Host host(argv[3]);                            // NOLINT
    std::vector<std::string> results;
    for (const std::size_t side_by_side : {std::size_t{1}, std::size_t{places}}) {
        std::vector<Round> bare_rounds;
        std::vector<Round> function_rounds;
        static_cast<void>(bare.round(side_by_side, calls / 4)); // warms up
        static_cast<void>(host.round(side_by_side, calls / 4));
        for (std::size_t i = 0; i < rounds; ++i) {
            // In turns, the first of them too: ABBA.
            if (i % 2 == 0)
                bare_rounds.push_back(bare.round(side_by_side, calls));
            function_rounds.push_back(host.round(side_by_side, calls));
            if (i % 2 == 1)
                bare_rounds.push_back(bare.round(side_by_side, calls));
        }
        results.push_back(fmt::format(R"({{"side_by_side": {}, "bare": {}, "function": {}}})",
                                      side_by_side, summary(bare_rounds),
                                      summary(function_rounds)));
    }
    std::cout << fmt::format(R"({{"rounds": {}, "calls_per_round": {}, "results": [{}]}})", rounds,
                             calls, fmt::join(results, ", "))
              << '\n';
    return 0;
}

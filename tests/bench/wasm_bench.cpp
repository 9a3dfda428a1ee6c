// SPDX-License-Identifier: Apache-2.0
//
// Figures of the WebAssembly engine, as JSON on stdout. tests/bench/wasm_bench.py runs it and draws
// them.
#include <algorithm>
#include <array>
#include <chrono>
#include <condition_variable>
#include <iostream>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include <unistd.h>

#include <fmt/format.h>

#include "host_runner/base/files.hpp"
#include "host_runner/wasm/engine.hpp"

namespace {

using namespace host_runner;
using Clock = std::chrono::steady_clock;

template <class T>
T need(Result<T> result) {
    if (!result) {
        std::cerr << result.error().describe() << '\n';
        std::exit(1);
    }
    return std::move(*result);
}

double milliseconds_since(Clock::time_point start) {
    return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

std::string module_bytes(const std::string& name) {
    return need(
        read_file(HOST_RUNNER_SOURCE_DIR "/tests/fixtures/wasm/" + name + ".wasm", 1 << 20));
}

std::uint64_t resident_kib() {
    const auto text = need(read_file("/proc/self/statm", 4096));
    return std::stoull(text.substr(text.find(' '))) *
           static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE)) / 1024;
}

/// Holds calls inside a host function until all have come, so that their instances exist at the
/// same time.
class Gate {
public:
    void come_and_wait() {
        std::unique_lock lock(mutex_);
        ++waiting_;
        changed_.notify_all();
        changed_.wait(lock, [&] { return open_; });
    }
    void wait_for(std::size_t count) {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return waiting_ == count; });
    }
    void open() {
        const std::lock_guard lock(mutex_);
        open_ = true;
        changed_.notify_all();
    }

private:
    std::mutex mutex_;
    std::condition_variable changed_;
    std::size_t waiting_ = 0;
    bool open_ = false;
};

wasm::HostResult wait_at_gate(wasm::HostCall& call) noexcept {
    static_cast<Gate*>(call.state)->come_and_wait();
    return 0U;
}

wasm::HostResult nothing(wasm::HostCall& /*call*/) noexcept {
    return 0U;
}

constexpr std::array two_i32{wasm::ValueType::i32, wasm::ValueType::i32};
constexpr std::array i32_i64{wasm::ValueType::i32, wasm::ValueType::i64};
const std::array<wasm::HostFunction, 3> functions{
    {{"env", "note", two_i32, true, wait_at_gate},
     {"env", "widen", i32_i64, true, nothing},
     {"env", "quit", std::span(two_i32).first(1), false, nothing}}};

wasm::Program program_of(const wasm::Engine& engine, const std::string& name) {
    const auto module = need(engine.load(need(wasm::compile(module_bytes(name)))));
    return need(need(engine.make_linker(functions)).bind(module));
}

void call_once(const wasm::Engine& engine, const wasm::Program& program, std::string_view function,
               const std::vector<std::uint64_t>& arguments, void* state = nullptr) {
    wasm::CallRequest request;
    request.function = function;
    request.arguments = arguments;
    request.state = state;
    request.wait_for_place = std::chrono::seconds(60);
    const auto outcome = need(engine.call(program, request));
    if (outcome.end != wasm::CallEnd::returned) {
        std::cerr << to_string(outcome.end) << ": " << outcome.message << '\n';
        std::exit(1);
    }
}

/// Median, 99th percentile and slowest of single calls, in microseconds.
std::string call_times(const wasm::Engine& engine, const wasm::Program& program,
                       std::string_view function, const std::vector<std::uint64_t>& arguments,
                       std::size_t calls) {
    std::vector<double> times;
    for (std::size_t i = 0; i < calls + calls / 10; ++i) {
        const auto start = Clock::now();
        call_once(engine, program, function, arguments);
        if (i >= calls / 10) // the first warm caches up
            times.push_back(milliseconds_since(start) * 1000);
    }
    std::sort(times.begin(), times.end());
    return fmt::format(R"({{"median": {:.2f}, "p99": {:.2f}, "max": {:.2f}, "calls": {}}})",
                       times[times.size() / 2], times[times.size() * 99 / 100], times.back(),
                       times.size());
}

double calls_per_second(const wasm::Engine& engine, const wasm::Program& program, unsigned threads,
                        std::size_t calls) {
    const auto start = Clock::now();
    std::vector<std::thread> workers;
    for (unsigned i = 0; i < threads; ++i)
        workers.emplace_back([&] {
            for (std::size_t call = 0; call < calls; ++call)
                call_once(engine, program, "add", {1, 2});
        });
    for (auto& worker : workers)
        worker.join();
    return static_cast<double>(threads) * static_cast<double>(calls) / milliseconds_since(start) *
           1000;
}

/// What `count` instances of one page and a data segment add to the memory of `count` waiting
/// threads.
std::string concurrent_memory(std::size_t count) {
    wasm::EngineSettings settings;
    settings.places = static_cast<std::uint32_t>(count);
    const auto engine = need(wasm::Engine::make(settings));
    const auto program = program_of(engine, "hosted");
    const auto with_threads = [&](const auto& body) {
        Gate gate;
        std::vector<std::thread> threads;
        for (std::size_t i = 0; i < count; ++i)
            threads.emplace_back([&] { body(gate); });
        gate.wait_for(count);
        const auto resident = resident_kib();
        gate.open();
        for (auto& thread : threads)
            thread.join();
        return resident;
    };
    const auto idle = with_threads([](Gate& gate) { gate.come_and_wait(); });
    const auto busy = with_threads([&](Gate& gate) {
        call_once(engine, program, "note", {16, 5}, &gate);
    });
    return fmt::format(
        R"({{"instances": {}, "threads_only_kib": {}, "with_instances_kib": {}, "kib_per_instance": {:.1f}}})",
        count, idle, busy,
        (static_cast<double>(busy) - static_cast<double>(idle)) / static_cast<double>(count));
}

} // namespace

int main() {
    const auto before = resident_kib();
    auto start = Clock::now();
    const auto artifact = need(wasm::compile(module_bytes("deeds")));
    const auto compile_ms = milliseconds_since(start);
    const auto after_compiling = resident_kib();
    start = Clock::now();
    const auto engine = need(wasm::Engine::make());
    const auto start_ms = milliseconds_since(start);
    start = Clock::now();
    const auto module = need(engine.load(artifact));
    const auto load_ms = milliseconds_since(start);
    const auto deeds = need(need(engine.make_linker(functions)).bind(module));
    const auto reactor = program_of(engine, "reactor");
    std::cout
        << fmt::format(R"({{"compile_ms": {:.2f}, "engine_start_ms": {:.2f}, "load_ms": {:.2f},)",
                       compile_ms, start_ms, load_ms)
        << fmt::format(
               R"("resident_kib": {{"before": {}, "after_compiling": {}, "with_engine": {}}},)",
               before, after_compiling, resident_kib());
    std::cout << R"("call_us": {"no memory": )" << call_times(engine, reactor, "value", {}, 20000)
              << R"(, "one page and a table": )" << call_times(engine, deeds, "add", {1, 2}, 20000)
              << R"(, "1 MiB touched": )" << call_times(engine, deeds, "touch", {1 << 20}, 1000);
    for (const std::size_t keep : {std::size_t{64} << 10, std::size_t{1} << 20}) {
        wasm::EngineSettings settings;
        settings.keep_resident_bytes = keep;
        const auto keeping = need(wasm::Engine::make(settings));
        const auto program = program_of(keeping, "deeds");
        std::cout << fmt::format(R"(, "one page, {} KiB kept": )", keep >> 10)
                  << call_times(keeping, program, "add", {1, 2}, 20000)
                  << fmt::format(R"(, "1 MiB touched, {} KiB kept": )", keep >> 10)
                  << call_times(keeping, program, "touch", {1 << 20}, 1000);
    }
    std::cout << R"(}, "calls_per_second": {)";
    const auto processors = std::max(1U, std::thread::hardware_concurrency());
    std::cout << fmt::format(R"("1 thread": {:.0f}, "{} threads": {:.0f})",
                             calls_per_second(engine, deeds, 1, 50000), processors * 2,
                             calls_per_second(engine, deeds, processors * 2, 20000));
    std::cout << R"(}, "concurrent": [)" << concurrent_memory(1) << ", " << concurrent_memory(100)
              << ", " << concurrent_memory(1000) << "]}\n";
    return 0;
}

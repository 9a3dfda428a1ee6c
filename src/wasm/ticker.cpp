// SPDX-License-Identifier: Apache-2.0
#include "ticker.hpp"

namespace host_runner::wasm {

Ticker::Ticker(const wasm_engine_t& engine, std::chrono::milliseconds tick)
    : engine_(engine), thread_([this, tick] { run(tick); }) {}

Ticker::~Ticker() {
    stopping_.store(true);
    running_.fetch_add(1);
    running_.notify_one();
    thread_.join();
}

void Ticker::run(std::chrono::milliseconds tick) noexcept {
    for (;;) {
        running_.wait(0);
        if (stopping_.load())
            return;
        std::this_thread::sleep_for(tick);
        wasmtime_engine_increment_epoch(&engine_);
    }
}

Ticker::Running::Running(Ticker& ticker) noexcept : ticker_(ticker) {
    if (ticker_.running_.fetch_add(1) == 0)
        ticker_.running_.notify_one();
}

Ticker::Running::~Running() {
    ticker_.running_.fetch_sub(1);
}

} // namespace host_runner::wasm

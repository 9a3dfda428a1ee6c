// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Makes running guests look at their deadline at a steady pace. A thread, because a guest that
/// loops gives its own none.

#include <atomic>
#include <chrono>
#include <thread>

#include "handles.hpp"

namespace host_runner::wasm {

class Ticker {
public:
    /// @param engine must live longer. Throws std::system_error when no thread can be started.
    Ticker(const wasm_engine_t& engine, std::chrono::milliseconds tick);
    Ticker(const Ticker&) = delete;
    Ticker& operator=(const Ticker&) = delete;
    ~Ticker();

    /// While one exists, there are ticks. An idle process has none: each would wake its VM.
    class Running {
    public:
        explicit Running(Ticker& ticker) noexcept;
        Running(const Running&) = delete;
        Running& operator=(const Running&) = delete;
        ~Running();

    private:
        Ticker& ticker_;
    };

private:
    void run(std::chrono::milliseconds tick) noexcept;

    const wasm_engine_t& engine_;
    std::atomic<int> running_{0};
    std::atomic<bool> stopping_{false};
    std::thread thread_;
};

} // namespace host_runner::wasm

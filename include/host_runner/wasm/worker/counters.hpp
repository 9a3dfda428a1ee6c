// SPDX-License-Identifier: Apache-2.0
#pragma once

/// What the workers of a service have counted, in memory that they share with the agent. The agent
/// makes it once and gives it to each worker that it starts, so that numbers go on over restarts,
/// and reads them whenever somebody asks: a worker has no more to do than to add.
///
/// A worker may write anything there. It harms nobody but those who believe its numbers.
///
///     HR_TRY(const auto counters, Counters::create(protocol::World::function));    // the agent
///     HR_TRY(const auto counters, Counters::attach(world, UniqueFd(counters_fd))); // a worker
///     counters.add(call_counter);
///
/// Members of one object may be called from several threads.

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "host_runner/base/error.hpp"
#include "host_runner/base/unique_fd.hpp"
#include "host_runner/protocol/app_compose.hpp"
#include "host_runner/protocol/invocation.hpp"

namespace host_runner::wasm::worker {

/// With the world function: requests that came, also those that were refused.
constexpr std::size_t call_counter = 0;
/// With the world function: how a call ended.
[[nodiscard]] std::size_t counter_of(const protocol::InvokeResult& result) noexcept;

class Counters {
public:
    /// In a file in memory of its own; all 0.
    /// @errors resource_exhausted
    [[nodiscard]] static Result<Counters> create(protocol::World world);
    /// @param file that of create() with the same world
    /// @errors resource_exhausted, io_error
    [[nodiscard]] static Result<Counters> attach(protocol::World world, UniqueFd file);

    /// For a worker to attach to.
    [[nodiscard]] int fd() const noexcept {
        return file_.get();
    }
    /// The numbers, one for each name.
    [[nodiscard]] std::uint64_t* data() const noexcept {
        return numbers_.get();
    }
    void add(std::size_t which) const noexcept;
    /// For the agent, once the worker has ended: its calls without an end are lost.
    void count_lost() const noexcept;
    /// By name: with wasi-http those of HttpKind; with function "call", "ok" (exit code 0) and
    /// those of protocol::CallStatus; with command none.
    [[nodiscard]] std::map<std::string, std::uint64_t> values() const;

private:
    struct Unmap {
        void operator()(std::uint64_t* numbers) const noexcept;
    };
    Counters(protocol::World world, UniqueFd file, std::uint64_t* numbers);

    protocol::World world_;
    UniqueFd file_;
    std::unique_ptr<std::uint64_t, Unmap> numbers_;
    std::vector<std::string> names_;
};

} // namespace host_runner::wasm::worker

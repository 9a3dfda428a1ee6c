// SPDX-License-Identifier: Apache-2.0
#include "host_runner/wasm/worker/counters.hpp"

#include <atomic>
#include <cerrno>
#include <numeric>
#include <span>
#include <utility>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "host_runner/wasm/http_server.hpp"

namespace host_runner::wasm::worker {

namespace {

using protocol::CallStatus;

constexpr std::size_t ok_counter = 1;
constexpr std::size_t first_status_counter = 2;
constexpr std::size_t statuses = static_cast<std::size_t>(CallStatus::lost) + 1;
constexpr std::size_t lost_counter = first_status_counter + statuses - 1;

constexpr std::size_t file_bytes = 4096;
static_assert(http_kinds * sizeof(std::uint64_t) <= file_bytes);
static_assert((first_status_counter + statuses) * sizeof(std::uint64_t) <= file_bytes);

std::vector<std::string> names_of(protocol::World world) {
    std::vector<std::string> names;
    if (world == protocol::World::wasi_http)
        for (std::size_t i = 0; i < http_kinds; ++i)
            names.emplace_back(to_string(static_cast<HttpKind>(i)));
    if (world == protocol::World::function) {
        names = {"call", "ok"};
        for (std::size_t i = 0; i < statuses; ++i)
            names.emplace_back(to_string(static_cast<CallStatus>(i)));
    }
    return names;
}

} // namespace

std::size_t counter_of(const protocol::InvokeResult& result) noexcept {
    if (result.status == CallStatus::exit && result.code == 0)
        return ok_counter;
    return first_status_counter + static_cast<std::size_t>(result.status);
}

Counters::Counters(protocol::World world, UniqueFd file, std::uint64_t* numbers)
    : world_(world), file_(std::move(file)), numbers_(numbers), names_(names_of(world)) {}

Result<Counters> Counters::create(protocol::World world) {
    UniqueFd file(::memfd_create("counters", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    // Of a size that stays: reading beyond a file's end would end the agent.
    if (!file || ::ftruncate(file.get(), file_bytes) != 0 ||
        ::fcntl(file.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
        return fail_errno("Cannot make a file in memory for counters", errno);
    return attach(world, std::move(file));
}

Result<Counters> Counters::attach(protocol::World world, UniqueFd file) {
    void* memory = ::mmap(nullptr, file_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0);
    if (memory == MAP_FAILED) // NOLINT: the system's macro
        return fail_errno("Cannot map the counters", errno);
    return Counters(world, std::move(file), static_cast<std::uint64_t*>(memory));
}

void Counters::Unmap::operator()(std::uint64_t* numbers) const noexcept {
    static_cast<void>(::munmap(numbers, file_bytes));
}

void Counters::add(std::size_t which) const noexcept {
    const std::span numbers(data(), names_.size());
    std::atomic_ref(numbers[which]).fetch_add(1, std::memory_order_relaxed);
}

void Counters::count_lost() const noexcept {
    if (world_ != protocol::World::function)
        return;
    const std::span numbers(data(), names_.size());
    const auto ended =
        std::accumulate(numbers.begin() + ok_counter, numbers.end(), std::uint64_t{0});
    if (numbers[call_counter] > ended)
        numbers[lost_counter] += numbers[call_counter] - ended;
}

std::map<std::string, std::uint64_t> Counters::values() const {
    const std::span numbers(data(), names_.size());
    std::map<std::string, std::uint64_t> values;
    for (std::size_t i = 0; i < names_.size(); ++i)
        values[names_[i]] = std::atomic_ref(numbers[i]).load(std::memory_order_relaxed);
    return values;
}

} // namespace host_runner::wasm::worker

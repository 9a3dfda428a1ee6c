// SPDX-License-Identifier: Apache-2.0
// The process's own: arguments, environment, end, random numbers.
#include <algorithm>
#include <cerrno>

#include <sched.h>
#include <sys/random.h>

#include "calls.hpp"
#include "wait.hpp"

namespace host_runner::wasm::wasi::calls {

namespace {

/// Between two looks at the deadline: about 0.2 ms of work.
constexpr std::size_t random_chunk_bytes = 65536;

std::size_t bytes_with_terminators(const std::vector<std::string>& list) {
    std::size_t sum = 0;
    for (const auto& text : list)
        sum += text.size() + 1;
    return sum;
}

Answer<void> give_sizes(Call& call, const std::vector<std::string>& list) {
    WASI_TRY(const auto count, call.memory.slot<std::uint32_t>(call.u32(0)));
    WASI_TRY(const auto bytes, call.memory.slot<std::uint32_t>(call.u32(1)));
    count.set(static_cast<std::uint32_t>(list.size()));
    bytes.set(static_cast<std::uint32_t>(bytes_with_terminators(list)));
    return {};
}

Answer<void> give_strings(Call& call, const std::vector<std::string>& list) {
    constexpr std::uint32_t pointer_bytes = 4;
    WASI_TRY(const auto pointers,
             call.memory.bytes(call.u32(0), list.size() * pointer_bytes, pointer_bytes));
    auto at = call.u32(1);
    WASI_TRY(auto text, call.memory.bytes(at, bytes_with_terminators(list)));
    for (std::size_t index = 0; index < list.size(); ++index) {
        const auto size = list[index].size() + 1; // c_str() ends with the NUL
        store(pointers, index * pointer_bytes, at);
        std::copy_n(reinterpret_cast<const std::byte*>(list[index].c_str()), size, text.begin());
        text = text.subspan(size);
        at += static_cast<std::uint32_t>(size);
    }
    return {};
}

} // namespace

Answer<void> args_get(Call& call) {
    return give_strings(call, call.state.arguments);
}

Answer<void> args_sizes_get(Call& call) {
    return give_sizes(call, call.state.arguments);
}

Answer<void> environ_get(Call& call) {
    return give_strings(call, call.state.environment);
}

Answer<void> environ_sizes_get(Call& call) {
    return give_sizes(call, call.state.environment);
}

Answer<void> proc_exit(Call& call) {
    call.state.exit_code = call.u32(0);
    return end_guest(TrapReason::exit, "The guest has ended");
}

Answer<void> proc_raise(Call& /*call*/) {
    return refuse(Errno::notsup);
}

Answer<void> random_get(Call& call) {
    WASI_TRY(auto place, call.memory.bytes(call.u32(0), call.u32(1)));
    while (!place.empty()) {
        WASI_CHECK(check_deadline(call.state.deadline));
        const auto count = ::getrandom(place.data(), std::min(place.size(), random_chunk_bytes), 0);
        if (count < 0 && errno != EINTR)
            return refuse_errno();
        if (count > 0)
            place = place.subspan(static_cast<std::size_t>(count));
    }
    return {};
}

Answer<void> sched_yield(Call& call) {
    WASI_CHECK(check_deadline(call.state.deadline));
    ::sched_yield();
    return {};
}

} // namespace host_runner::wasm::wasi::calls

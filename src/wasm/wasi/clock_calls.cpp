// SPDX-License-Identifier: Apache-2.0
#include "calls.hpp"
#include "clocks.hpp"

namespace host_runner::wasm::wasi {

Answer<clockid_t> host_clock(std::uint32_t id) {
    switch (id) {
    case 0:
        return CLOCK_REALTIME;
    case 1:
        return CLOCK_MONOTONIC;
    case 2:
    case 3:
        return refuse(Errno::badf);
    default:
        return refuse(Errno::inval);
    }
}

std::uint64_t nanoseconds(const timespec& time) noexcept {
    constexpr std::uint64_t per_second = 1'000'000'000;
    if (time.tv_sec < 0) // before 1970: the guest's numbers have no sign
        return 0;
    return static_cast<std::uint64_t>(time.tv_sec) * per_second +
           static_cast<std::uint64_t>(time.tv_nsec);
}

Answer<std::uint64_t> read_clock(clockid_t clock) {
    timespec now{};
    if (::clock_gettime(clock, &now) != 0)
        return refuse_errno();
    return nanoseconds(now);
}

namespace calls {

Answer<void> clock_res_get(Call& call) {
    WASI_TRY(const auto place, call.memory.slot<std::uint64_t>(call.u32(1)));
    WASI_TRY(const auto clock, host_clock(call.u32(0)));
    timespec resolution{};
    if (::clock_getres(clock, &resolution) != 0)
        return refuse_errno();
    place.set(nanoseconds(resolution));
    return {};
}

Answer<void> clock_time_get(Call& call) {
    WASI_TRY(const auto place, call.memory.slot<std::uint64_t>(call.u32(2)));
    WASI_TRY(const auto clock, host_clock(call.u32(0)));
    WASI_TRY(const auto now, read_clock(clock));
    place.set(now);
    return {};
}

} // namespace calls

} // namespace host_runner::wasm::wasi

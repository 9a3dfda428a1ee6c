// SPDX-License-Identifier: Apache-2.0
#include "host_runner/cli/service_state.hpp"

#include <chrono>

#include <fmt/format.h>

#include "host_runner/instance/logs.hpp"

namespace host_runner::cli {

namespace {

using std::chrono::microseconds;

/// The guest of a large TD is silent for minutes while it accepts its memory.
constexpr std::chrono::minutes until_next_progress{10};
/// After a step's limit QEMU is killed, and what it had is given back.
constexpr std::chrono::seconds after_step{15};

std::string with_more_time(const std::string& state, microseconds time) {
    return state + fmt::format("\nEXTEND_TIMEOUT_USEC={}", time.count());
}

} // namespace

std::string service_state(const instance::RunEvent& event) {
    using Kind = instance::RunEvent::Kind;
    const auto status = [&](std::string_view what) {
        return fmt::format("STATUS={}{}", what, instance::printable(event.text));
    };
    switch (event.kind) {
    case Kind::created:
        return status("VM ");
    case Kind::started:
        return with_more_time(status("booting, QEMU pid "), until_next_progress);
    case Kind::progress:
        return with_more_time(status("guest: "), until_next_progress);
    case Kind::ready:
        return "READY=1\nSTATUS=ready";
    case Kind::boot_error:
        return status("the guest could not start its services: ");
    case Kind::restart:
        return with_more_time(status("restart: "), until_next_progress);
    case Kind::stop_step:
        return with_more_time("STOPPING=1\n" + status("stopping: "), event.limit + after_step);
    case Kind::ended:
        return status("ended: ");
    case Kind::warning:
    case Kind::notice:
    case Kind::port:
        return {};
    }
    return {};
}

} // namespace host_runner::cli

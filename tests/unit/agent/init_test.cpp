// SPDX-License-Identifier: Apache-2.0
#include "host_runner/agent/init.hpp"

#include <csignal>

#include <gtest/gtest.h>

namespace host_runner::agent {
namespace {

TEST(MachineEnd, is_power_off_only_when_the_agent_asks_for_it) {
    EXPECT_EQ(machine_end({true, 0, 0}), MachineEnd::power_off);
    EXPECT_EQ(machine_end({true, 1, 0}), MachineEnd::reset);
    EXPECT_EQ(machine_end({false, 0, SIGSEGV}), MachineEnd::reset);
}

} // namespace
} // namespace host_runner::agent

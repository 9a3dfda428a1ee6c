// SPDX-License-Identifier: Apache-2.0
#include "host_runner/agent/network.hpp"

#include <gmock/gmock.h>

namespace host_runner::agent {
namespace {

TEST(HostsFile, lets_services_find_each_other_by_name) {
    EXPECT_EQ(hosts_file("demo", {"web", "db"}),
              "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n127.0.1.1 demo\n"
              "127.0.0.1 web\n127.0.0.1 db\n");
}

TEST(Interfaces, names_the_one_that_is_missing) {
    const auto up = bring_up_interface("nosuch0");
    ASSERT_FALSE(up);
    EXPECT_THAT(up.error().message, testing::HasSubstr("nosuch0"));
}

} // namespace
} // namespace host_runner::agent

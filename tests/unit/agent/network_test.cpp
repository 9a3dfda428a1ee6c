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

TEST(Authority, is_located_by_its_address_or_by_the_hosts_file) {
    const auto hosts = hosts_file("vm", {"db"});
    EXPECT_EQ(*locate_authority(hosts, "10.0.2.2:80"), "10.0.2.2:80");
    EXPECT_EQ(*locate_authority(hosts, "[::1]:80"), "[::1]:80");
    EXPECT_EQ(*locate_authority(hosts, "db:5432"), "127.0.0.1:5432");
    EXPECT_EQ(*locate_authority(hosts, "localhost:1"), "127.0.0.1:1");
    for (const auto* unknown : {"api.example.com:443", "d:1", "[db]:1", "999.0.0.1:1"})
        EXPECT_EQ(locate_authority(hosts, unknown).error().code, ErrorCode::not_found) << unknown;
}

} // namespace
} // namespace host_runner::agent

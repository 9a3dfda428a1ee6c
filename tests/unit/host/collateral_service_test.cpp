// SPDX-License-Identifier: Apache-2.0
#include "host_runner/host/collateral_service.hpp"

#include <gmock/gmock.h>

#include "fakes/host_fixture.hpp"

namespace host_runner::host {
namespace {

using tests::HostFixture;

Result<CollateralService> read(const std::string& text) {
    HostFixture host;
    host.write("/etc/sgx_default_qcnl.conf", text);
    return read_collateral_service(host.root());
}

TEST(CollateralService, is_read_from_json_with_comments) {
    const auto service =
        read("{\n  // PCCS server address\n  \"pccs_url\": "
             "\"https://localhost:8081/sgx/certification/v4/\"\n  ,\"retry_times\": 6\n}");
    ASSERT_TRUE(service) << service.error().describe();
    EXPECT_EQ(service->url, "https://localhost:8081/sgx/certification/v4/");
    EXPECT_EQ(service->host, "localhost");
    EXPECT_EQ(service->port, 8081);
}

TEST(CollateralService, has_the_scheme_s_port_and_any_kind_of_host) {
    EXPECT_EQ(read(R"({"pccs_url":"https://pccs.example"})")->port, 443);
    EXPECT_EQ(read(R"({"pccs_url":"http://pccs.example/x:1"})")->port, 80);
    EXPECT_EQ(read(R"({"pccs_url":"https://user@pccs.example:1/"})")->host, "pccs.example");
    const auto v6 = read(R"({"pccs_url":"https://[::1]:8081/"})");
    EXPECT_EQ(v6->host, "::1");
    EXPECT_EQ(v6->port, 8081);
    EXPECT_EQ(read(R"({"pccs_url":"https://[::1]/"})")->host, "::1");
}

TEST(CollateralService, refuses_a_file_that_names_none) {
    for (const auto* text : {"", "[]", "{}", R"({"pccs_url":1})", R"({"pccs_url":"ftp://x"})",
                             R"({"pccs_url":"https://"})", R"({"pccs_url":"https://x:99999"})",
                             R"({"pccs_url":"https://x:"})", R"({"pccs_url":"https://x:8o"})"})
        EXPECT_EQ(read(text).error().code, ErrorCode::corrupt_data) << text;
}

TEST(CollateralService, without_a_file_is_not_found) {
    EXPECT_EQ(read_collateral_service(HostFixture().root()).error().code, ErrorCode::not_found);
}

} // namespace
} // namespace host_runner::host

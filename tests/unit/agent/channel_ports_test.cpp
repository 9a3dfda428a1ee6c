// SPDX-License-Identifier: Apache-2.0
#include "host_runner/agent/channel_ports.hpp"

#include <gmock/gmock.h>

#include "fakes/temporary_directory.hpp"
#include "host_runner/base/files.hpp"

namespace host_runner::agent {
namespace {

using namespace std::chrono_literals;

class ChannelPorts : public testing::Test {
protected:
    void add(const std::string& port, std::string_view name) {
        ASSERT_TRUE(make_directories(folder / ("class/" + port)));
        ASSERT_TRUE(make_directories(folder / "dev"));
        ASSERT_TRUE(write_file_atomic(folder / ("class/" + port + "/name"), name));
        ASSERT_TRUE(write_file_atomic(folder / ("dev/" + port), ""));
    }
    Result<std::string> find(std::string_view name) {
        return find_channel_port(folder / "class", folder / "dev", name, 0ms);
    }
    tests::TemporaryDirectory folder;
};

TEST_F(ChannelPorts, finds_the_device_by_the_whole_name) {
    add("vport1p1", "host-runner.12\n");
    add("vport1p2", "host-runner.1\n");
    EXPECT_EQ(*find("host-runner.1"), folder / "dev/vport1p2");
}

TEST_F(ChannelPorts, names_the_port_that_is_missing) {
    const auto found = find("host-runner.1");
    ASSERT_FALSE(found);
    EXPECT_EQ(found.error().code, ErrorCode::not_found);
    EXPECT_THAT(found.error().message, testing::HasSubstr("host-runner.1"));
}

} // namespace
} // namespace host_runner::agent

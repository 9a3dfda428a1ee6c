// SPDX-License-Identifier: Apache-2.0
#include "host_runner/usernet/settings.hpp"

#include <gmock/gmock.h>

namespace host_runner::usernet {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

TEST(Settings, survive_the_command_line) {
    Settings settings;
    settings.egress = true;
    settings.host_services = {5432, 8080};
    settings.ports = spec::parse_port_mappings("tcp:0.0.0.0:443:8443,udp::53:53").value();
    settings.user = 65534;
    const auto words = to_arguments(settings);
    EXPECT_THAT(words, ElementsAre("--egress", "--host-service", "5432", "--host-service", "8080",
                                   "--port", "tcp:0.0.0.0:443:8443", "--port",
                                   "udp:127.0.0.1:53:53", "--user", "65534"));
    EXPECT_EQ(parse_arguments(words).value(), settings);
}

TEST(Settings, that_ask_for_nothing_are_no_words) {
    EXPECT_THAT(to_arguments({}), IsEmpty());
    EXPECT_EQ(parse_arguments({}).value(), Settings{});
}

TEST(Settings, refuse_other_words) {
    for (const std::vector<std::string>& words : {std::vector<std::string>{"--host-service"},
                                                  {"--host-service", "0"},
                                                  {"--host-service", "65536"},
                                                  {"--host-service", "80x"},
                                                  {"--user", "0"},
                                                  {"--user", "-1"},
                                                  {"--port", "80"},
                                                  {"--help", "x"},
                                                  {"x"}}) {
        const auto settings = parse_arguments(words);
        ASSERT_FALSE(settings) << words.front();
        EXPECT_EQ(settings.error().code, ErrorCode::invalid_argument);
    }
}

TEST(NetworkStatus, survives_its_line) {
    for (const Status& status :
         {Status{Status::Kind::ready, ""}, Status{Status::Kind::port_taken, "tcp:127.0.0.1:80:80"},
          Status{Status::Kind::failed, "no way"}})
        EXPECT_EQ(parse_status(format_status(status)), status);
}

TEST(NetworkStatus, is_one_line) {
    EXPECT_EQ(format_status({Status::Kind::failed, "one\ntwo"}), "failed one\n");
}

TEST(NetworkStatus, takes_everything_else_for_a_failure_in_its_words) {
    const auto status = parse_status("user_network: error while loading shared libraries: "
                                     "libslirp.so.0: cannot open shared object file\n");
    EXPECT_EQ(status.kind, Status::Kind::failed);
    EXPECT_THAT(status.text, HasSubstr("libslirp.so.0"));
    EXPECT_EQ(parse_status("read").kind, Status::Kind::failed);
    EXPECT_EQ(parse_status("ready").kind, Status::Kind::failed) << "cut short";
    EXPECT_THAT(parse_status("").text, HasSubstr("without a word"));
}

} // namespace
} // namespace host_runner::usernet

// SPDX-License-Identifier: Apache-2.0
#include "host_runner/usernet/passt.hpp"

#include <gmock/gmock.h>

namespace host_runner::usernet {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

/// Of `passt --help`, 0.0~git20230309 and 0.0~git20250503.
constexpr auto old_help = "  -F, --fd FD\t\tUse FD\n  -P, --pid FILE\tWrite\n"
                          "  --dns-forward ADDR\tForward\n  --no-map-gw\t\tDon't map\n";
constexpr auto new_help = "  -F, --fd FD\t\tUse FD\n  -P, --pid FILE\tWrite\n"
                          "  --map-host-loopback ADDR\tTranslate\n"
                          "  --dns-forward ADDR\tForward\n  --no-map-gw\t\tDon't map\n";

TEST(PasstProbe, takes_one_that_keeps_the_loopback_closed) {
    EXPECT_THAT(passt_problem(new_help), IsEmpty());
}

TEST(PasstProbe, refuses_one_that_lets_packets_to_the_loopback_through) {
    EXPECT_THAT(passt_problem(old_help), HasSubstr("loopback"));
}

TEST(PasstProbe, names_an_option_that_is_missing) {
    EXPECT_THAT(passt_problem("passt: --fdx"), HasSubstr("--fd"));
}

TEST(PasstCommand, forwards_ports_and_shows_nothing_of_the_host) {
    const auto ports = spec::parse_port_mappings("tcp:8080:80,udp:0.0.0.0:53:53").value();
    const auto argv = passt_command("/usr/bin/passt", ports).argv;
    EXPECT_THAT(argv,
                ElementsAre("/usr/bin/passt", "--foreground", "--quiet", "--pid", "/dev/fd/1",
                            "--fd", "3", "--ipv4-only", "--no-map-gw", "--map-host-loopback",
                            "none", "--address", "10.0.2.10", "--netmask", "24", "--gateway",
                            "10.0.2.2", "--dns", "10.0.2.3", "--dns-forward", "10.0.2.3",
                            "--tcp-ports", "127.0.0.1/8080:80", "--udp-ports", "0.0.0.0/53:53"));
}

TEST(PasstStatus, is_ready_with_its_pid) {
    EXPECT_EQ(parse_passt_status("Started as root, will change to nobody.\n", false), std::nullopt);
    EXPECT_EQ(parse_passt_status("Started as root, will change to nobody.\n161", false),
              std::nullopt);
    EXPECT_EQ(parse_passt_status("Started as root, will change to nobody.\n16153\n", false)->kind,
              Status::Kind::ready);
}

TEST(PasstStatus, names_a_port_that_is_taken) {
    const auto status = parse_passt_status(
        "Failed to bind port 36001 (Address already in use) for option '-t 127.0.0.1/36001:80'\n",
        true);
    EXPECT_EQ(status, (Status{Status::Kind::port_taken, "-t 127.0.0.1/36001:80"}));
}

TEST(PasstStatus, gives_its_last_words) {
    EXPECT_EQ(parse_passt_status("one\nNo external routable interface\n", true),
              (Status{Status::Kind::failed, "No external routable interface"}));
    EXPECT_THAT(parse_passt_status("", true)->text, HasSubstr("without a word"));
}

} // namespace
} // namespace host_runner::usernet

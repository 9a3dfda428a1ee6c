// SPDX-License-Identifier: Apache-2.0
#include "host_runner/spec/port_mapping.hpp"

#include <gtest/gtest.h>

namespace host_runner::spec {
namespace {

PortMapping parse_single(std::string_view text) {
    return parse_port_mappings(text).value().at(0);
}

TEST(PortMappingParser, takes_protocol_address_and_both_ports) {
    EXPECT_EQ(parse_single("tcp:0.0.0.0:443:8443"),
              (PortMapping{Protocol::tcp, "0.0.0.0", 443, 8443}));
    EXPECT_EQ(parse_single("udp:192.0.2.1:53:5353"),
              (PortMapping{Protocol::udp, "192.0.2.1", 53, 5353}));
}

TEST(PortMappingParser, reads_an_empty_or_missing_address_as_loopback) {
    const PortMapping expected{Protocol::tcp, "127.0.0.1", 10024, 22};
    EXPECT_EQ(parse_single("tcp::10024:22"), expected);
    EXPECT_EQ(parse_single("tcp:10024:22"), expected);
}

TEST(PortMappingParser, takes_a_comma_list_with_blanks) {
    const auto mappings = parse_port_mappings("tcp:0.0.0.0:443:443, udp::53:53").value();
    ASSERT_EQ(mappings.size(), 2U);
    EXPECT_EQ(mappings[1], (PortMapping{Protocol::udp, "127.0.0.1", 53, 53}));
}

TEST(PortMappingParser, takes_host_port_zero_as_a_free_one) {
    EXPECT_EQ(parse_single("tcp::0:8080").host_port, 0);
}

TEST(PortMappingParser, refuses_guest_port_zero) {
    EXPECT_FALSE(parse_port_mappings("tcp::8080:0"));
}

TEST(PortMappingParser, names_the_bad_part_its_rule_and_an_example) {
    const auto refused = parse_port_mappings("tcp::70000:80");
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::invalid_argument);
    EXPECT_EQ(refused.error().message, "'tcp::70000:80' is not a port mapping: its host port "
                                       "'70000' is not a number from 0 to 65535");
    EXPECT_NE(refused.error().hint.find("tcp::8080:80"), std::string::npos);
}

TEST(PortMappingParser, refuses_what_has_another_form) {
    for (const char* text :
         {"", ",", "tcp", "tcp:80", "80:80", "sctp::1:2", "TCP::1:2", "tcp:::2",
          "tcp::1:", "tcp::-1:2", "tcp::+1:2", "tcp::1:2:3", "tcp:localhost:1:2", "tcp:1.2.3:1:2",
          "tcp:::1:1:2", "tcp:[::1]:1:2", "tcp::1:2,", "tcp:: 1:2", "tcp::0x50:2"})
        EXPECT_FALSE(parse_port_mappings(text)) << text;
}

TEST(PortMappingFormat, parses_back) {
    for (const char* text : {"tcp:0.0.0.0:443:443", "udp:127.0.0.1:0:53"})
        EXPECT_EQ(format_port_mapping(parse_single(text)), text);
}

TEST(PortMappingConflicts, sees_the_same_port_on_equal_or_unspecified_addresses) {
    EXPECT_TRUE(conflicts(parse_single("tcp::80:1"), parse_single("tcp::80:2")));
    EXPECT_TRUE(conflicts(parse_single("tcp:0.0.0.0:80:1"), parse_single("tcp::80:2")));
    EXPECT_TRUE(conflicts(parse_single("tcp::80:1"), parse_single("tcp:0.0.0.0:80:2")));
}

TEST(PortMappingConflicts, lets_other_protocols_ports_addresses_and_free_ports_be) {
    EXPECT_FALSE(conflicts(parse_single("tcp::80:1"), parse_single("udp::80:1")));
    EXPECT_FALSE(conflicts(parse_single("tcp::80:1"), parse_single("tcp::81:1")));
    EXPECT_FALSE(conflicts(parse_single("tcp::80:1"), parse_single("tcp:192.0.2.1:80:1")));
    EXPECT_FALSE(conflicts(parse_single("tcp::0:1"), parse_single("tcp::0:1")));
}

} // namespace
} // namespace host_runner::spec

// SPDX-License-Identifier: Apache-2.0
#include "host_runner/spec/pci_address.hpp"

#include <gtest/gtest.h>

namespace host_runner::spec {
namespace {

TEST(PciAddressParser, takes_addresses_with_and_without_domain) {
    EXPECT_EQ(parse_pci_addresses("0001:b8:1f.7").value().at(0), (PciAddress{1, 0xb8, 0x1f, 7}));
    EXPECT_EQ(parse_pci_addresses("B8:00.0").value().at(0), (PciAddress{0, 0xb8, 0, 0}));
}

TEST(PciAddressParser, takes_a_comma_list) {
    const auto addresses = parse_pci_addresses("b8:00.0,0000:b9:00.0").value();
    ASSERT_EQ(addresses.size(), 2U);
    EXPECT_EQ(addresses[1].bus, 0xb9);
}

TEST(PciAddressParser, names_the_value_and_an_example) {
    const auto refused = parse_pci_addresses("b8:00.0,gpu0");
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::invalid_argument);
    EXPECT_NE(refused.error().message.find("'gpu0'"), std::string::npos);
    EXPECT_NE(refused.error().hint.find("0000:b8:00.0"), std::string::npos);
}

TEST(PciAddressParser, refuses_what_has_another_form_or_is_out_of_range) {
    for (const char* text : {"", ",", "b8", "b8:00", "b8:00.", "b8:00.8", "b8:20.0", "b8:0.0",
                             "8:00.0", "10000:00:00.0", "0:b8:00.0", "0000:b8:00.0.0", "g8:00.0",
                             "0000:0000:b8:00.0", "b8:00.0,"})
        EXPECT_FALSE(parse_pci_addresses(text)) << text;
}

TEST(PciAddressFormat, always_gives_the_full_form) {
    EXPECT_EQ(format_pci_address(parse_pci_addresses("B8:00.0").value().at(0)), "0000:b8:00.0");
}

} // namespace
} // namespace host_runner::spec

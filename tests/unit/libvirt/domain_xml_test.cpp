// SPDX-License-Identifier: Apache-2.0
#include "host_runner/libvirt/domain_xml.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "argv_case.hpp"
#include "fakes/golden_file.hpp"
#include "host_runner/base/files.hpp"
#include "host_runner/base/units.hpp"

namespace host_runner::libvirt {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

const std::string golden_folder = HOST_RUNNER_SOURCE_DIR "/tests/golden/xml";

std::vector<std::string> golden_cases() {
    return list_directory(golden_folder).value();
}

qemu::LaunchPlan plan_of(const std::string& name) {
    return tests::load_argv_case(join_path(golden_folder, name + "/options.txt")).value().plan;
}

/// What a case's options.txt says of libvirt in its first lines.
DomainFacts facts_of(const std::string& name) {
    DomainFacts facts;
    facts.version = name.starts_with("tdx") ? 12'008'000 : 9'000'000;
    facts.user = DomainFacts::User{990, 991};
    if (name == "session")
        facts.user.reset();
    if (name == "hugepages_two_nodes") {
        facts.hugepage_bytes = 2 * mib;
        facts.pinning = instance::Pinning{{}, {8, 9, 10, 11, 24, 25}, {1, 3}};
        for (unsigned i = 0; i < 8; ++i)
            facts.pinning->vcpus.push_back(i < 4 ? std::vector<std::uint32_t>{8, 9, 10, 11}
                                                 : std::vector<std::uint32_t>{24, 25});
    }
    if (name == "gpus" || name == "tdx_gpus")
        facts.hugepage_bytes = gib;
    return facts;
}

std::string xml_of(const qemu::LaunchPlan& plan, const DomainFacts& facts) {
    const auto xml = build_domain_xml(plan, facts);
    EXPECT_TRUE(xml) << xml.error().describe();
    return xml.value_or("");
}

Error error_of(const qemu::LaunchPlan& plan, const DomainFacts& facts) {
    const auto xml = build_domain_xml(plan, facts);
    EXPECT_FALSE(xml);
    return xml ? Error{} : xml.error();
}

class DomainXmlGolden : public testing::TestWithParam<std::string> {};

TEST_P(DomainXmlGolden, is_what_the_plan_gives) {
    const auto folder = join_path(golden_folder, GetParam());
    const auto input = tests::load_argv_case(join_path(folder, "options.txt"));
    ASSERT_TRUE(input) << input.error().describe();
    ASSERT_TRUE(qemu::build_argv(input->plan, input->capabilities)) << "no plan of ours";
    EXPECT_TRUE(tests::matches_golden(join_path(folder, "expected.xml"),
                                      xml_of(input->plan, facts_of(GetParam()))));
}

INSTANTIATE_TEST_SUITE_P(Case, DomainXmlGolden, testing::ValuesIn(golden_cases()),
                         [](const auto& tested) { return tested.param; });

// --- versions -----------------------------------------------------------------------------------

TEST(DomainXml, a_td_needs_a_libvirt_that_knows_tdx_and_the_error_says_which) {
    auto facts = facts_of("tdx");
    facts.version = 9'000'000;
    const auto error = error_of(plan_of("tdx"), facts);
    EXPECT_EQ(error.code, ErrorCode::unsupported);
    EXPECT_THAT(error.message, AllOf(HasSubstr("11.6.0"), HasSubstr("9.0.0")));
    facts.version = tdx_version;
    EXPECT_THAT(xml_of(plan_of("tdx"), facts), HasSubstr("launchSecurity"));
}

TEST(DomainXml, a_td_with_a_gpu_needs_a_libvirt_that_knows_iommufd) {
    auto facts = facts_of("tdx_gpus");
    facts.version = tdx_version;
    const auto error = error_of(plan_of("tdx_gpus"), facts);
    EXPECT_EQ(error.code, ErrorCode::unsupported);
    EXPECT_THAT(error.message, HasSubstr("12.1.0"));
}

TEST(DomainXml, an_unknown_version_is_taken_for_the_newest) {
    auto facts = facts_of("tdx_gpus");
    facts.version = 0;
    EXPECT_THAT(xml_of(plan_of("tdx_gpus"), facts), HasSubstr("iommufd=\"yes\""));
}

TEST(DomainXml, versions_are_written_as_people_write_them) {
    EXPECT_EQ(format_version(12'008'003), "12.8.3");
}

// --- what libvirt cannot do ---------------------------------------------------------------------

TEST(DomainXml, a_quote_service_behind_vsock_is_refused_with_the_way_out) {
    auto plan = plan_of("tdx");
    plan.qgs = spec::QgsAddress{};
    const auto error = error_of(plan, facts_of("tdx"));
    EXPECT_EQ(error.code, ErrorCode::unsupported);
    EXPECT_THAT(error.hint, HasSubstr("--qgs unix:/var/run/tdx-qgs/qgs.socket"));
}

TEST(DomainXml, what_no_xml_can_hold_is_refused) {
    for (const auto* const bad : {"a\x01z", "a\xffz"}) {
        auto plan = plan_of("plain");
        plan.command_line = bad;
        EXPECT_EQ(error_of(plan, facts_of("plain")).code, ErrorCode::invalid_argument);
    }
}

// --- details ------------------------------------------------------------------------------------

TEST(DomainXml, text_is_escaped) {
    auto plan = plan_of("session");
    plan.command_line = "a=\"<&>\" ]]> '";
    const auto xml = xml_of(plan, facts_of("session"));
    EXPECT_THAT(xml, Not(HasSubstr("<&>")));
    EXPECT_THAT(xml, HasSubstr("&lt;&amp;&gt;"));
    EXPECT_EQ(domain_identity(xml).value().name, "host-runner-0123456789ab");
}

TEST(DomainXml, arguments_for_qemu_stand_only_where_xml_has_no_word) {
    EXPECT_THAT(xml_of(plan_of("session"), facts_of("session")), Not(HasSubstr("qemu:arg")));
    EXPECT_THAT(xml_of(plan_of("plain"), facts_of("plain")),
                AllOf(HasSubstr("&quot;restrict&quot;:true"), HasSubstr("tcp:127.0.0.1:8080-:8080"),
                      Not(HasSubstr("-global"))));
}

TEST(DomainXml, a_bridge_is_an_interface_of_libvirts_own) {
    auto plan = plan_of("session");
    plan.network = {spec::NetworkMode::bridge, "br0"};
    plan.mac = "02:00:00:00:00:01";
    EXPECT_THAT(xml_of(plan, facts_of("session")),
                AllOf(HasSubstr("<source bridge=\"br0\" />"), Not(HasSubstr("qemu:arg"))));
}

TEST(DomainXml, a_daemon_of_the_users_own_needs_no_label) {
    EXPECT_THAT(xml_of(plan_of("session"), facts_of("session")), Not(HasSubstr("seclabel")));
    EXPECT_THAT(xml_of(plan_of("plain"), facts_of("plain")), HasSubstr("+990:+991"));
}

TEST(DomainXml, an_instance_has_one_name_and_one_uuid_for_ever) {
    EXPECT_EQ(domain_name("0123456789ab"), "host-runner-0123456789ab");
    const auto uuid = domain_uuid("0123456789ab");
    EXPECT_EQ(uuid, domain_uuid("0123456789ab"));
    EXPECT_NE(uuid, domain_uuid("0123456789ac"));
    EXPECT_THAT(uuid, testing::MatchesRegex(
                          "[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"));
    const auto identity = domain_identity(xml_of(plan_of("plain"), facts_of("plain")));
    EXPECT_EQ(identity.value().uuid, uuid);
    EXPECT_FALSE(domain_identity("no xml"));
}

} // namespace
} // namespace host_runner::libvirt

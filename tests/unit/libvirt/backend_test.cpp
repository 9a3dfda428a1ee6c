// SPDX-License-Identifier: Apache-2.0
#include "host_runner/libvirt/backend.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace host_runner::libvirt {
namespace {

using testing::HasSubstr;

Error error_of(const std::string& uri, uid_t uid) {
    const auto chosen = choose_uri({true, uri}, uid);
    EXPECT_FALSE(chosen) << uri;
    return chosen ? Error{} : chosen.error();
}

TEST(LibvirtUri, without_one_root_has_the_systems_daemon_and_others_their_own) {
    EXPECT_EQ(choose_uri({true, {}}, 0).value(), "qemu:///system");
    EXPECT_EQ(choose_uri({true, {}}, 1000).value(), "qemu:///session");
}

TEST(LibvirtUri, a_given_one_is_taken_as_it_is) {
    for (const auto* const uri : {"qemu:///system", "qemu+unix:///system?socket=/run/x/sock"})
        EXPECT_EQ(choose_uri({true, uri}, 0).value(), uri);
    EXPECT_EQ(choose_uri({true, "qemu:///session"}, 1000).value(), "qemu:///session");
}

TEST(LibvirtUri, another_machine_cannot_reach_the_instance_folder) {
    for (const auto* const uri :
         {"qemu+ssh://root@far/system", "qemu://far/system", "qemu+tcp:///system"}) {
        const auto error = error_of(uri, 0);
        EXPECT_EQ(error.code, ErrorCode::unsupported) << uri;
        EXPECT_THAT(error.message, HasSubstr(uri));
    }
}

TEST(LibvirtUri, the_systems_daemon_makes_sockets_that_only_root_may_open) {
    const auto error = error_of("qemu:///system", 1000);
    EXPECT_EQ(error.code, ErrorCode::unsupported);
    EXPECT_THAT(error.hint, HasSubstr("qemu:///session"));
}

TEST(LibvirtUri, other_hypervisors_and_other_texts_are_refused) {
    EXPECT_EQ(error_of("xen:///system", 0).code, ErrorCode::unsupported);
    EXPECT_EQ(error_of("test:///default", 0).code, ErrorCode::unsupported);
    EXPECT_EQ(error_of("qemu:system", 0).code, ErrorCode::invalid_argument);
    EXPECT_EQ(error_of("://", 0).code, ErrorCode::invalid_argument);
}

TEST(LibvirtFacts, only_a_daemon_of_roots_has_to_be_told_whom_qemu_runs_as) {
    instance::Placement placement;
    placement.page_bytes = 2 << 20;
    const auto system = domain_facts("qemu:///system?socket=/x", 7, 8, placement, "/bin/q");
    ASSERT_TRUE(system.user);
    EXPECT_EQ(system.user->uid, 7U);
    EXPECT_EQ(system.user->gid, 8U);
    EXPECT_EQ(system.hugepage_bytes, placement.page_bytes);
    EXPECT_EQ(system.emulator, "/bin/q");
    EXPECT_FALSE(domain_facts("qemu:///session", 7, 8, placement, "/bin/q").user);
}

} // namespace
} // namespace host_runner::libvirt

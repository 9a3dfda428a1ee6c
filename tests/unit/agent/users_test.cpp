// SPDX-License-Identifier: Apache-2.0
#include "host_runner/agent/users.hpp"

#include <gmock/gmock.h>

namespace host_runner::agent {
namespace {

constexpr std::string_view passwd = "root:x:0:0:root:/root:/bin/sh\n"
                                    "service:x:1000:1001:a comment:/home/service:/bin/sh\n"
                                    "broken:x:one:two::/:\n";
constexpr std::string_view group = "root:x:0:\n"
                                   "service:x:1001:\n"
                                   "disk:x:6:root,service\n"
                                   "video:x:44:serviceman\n";

TEST(Users, takes_the_default_user_when_none_is_named) {
    const auto user = resolve_user(passwd, group, "");
    ASSERT_TRUE(user);
    EXPECT_EQ(user->ids.uid, default_service_uid);
    EXPECT_EQ(user->ids.gid, 1001U);
    EXPECT_EQ(user->home, "/home/service");
}

TEST(Users, finds_a_name_with_its_supplementary_groups) {
    const auto user = resolve_user(passwd, group, "service");
    ASSERT_TRUE(user);
    EXPECT_EQ(user->ids.uid, 1000U);
    EXPECT_THAT(user->ids.groups, testing::ElementsAre(6U));
}

TEST(Users, gives_a_number_without_an_entry_its_own_group_and_no_home) {
    const auto user = resolve_user(passwd, group, "4242");
    ASSERT_TRUE(user);
    EXPECT_EQ(user->ids.uid, 4242U);
    EXPECT_EQ(user->ids.gid, 4242U);
    EXPECT_EQ(user->home, "/");
    EXPECT_TRUE(user->ids.groups.empty());
}

TEST(Users, takes_the_group_after_the_colon_by_name_and_by_number) {
    EXPECT_EQ(resolve_user(passwd, group, "service:disk")->ids.gid, 6U);
    EXPECT_EQ(resolve_user(passwd, group, "0:77")->ids.gid, 77U);
}

TEST(Users, refuses_unknown_names) {
    EXPECT_EQ(resolve_user(passwd, group, "nobody-here").error().code, ErrorCode::not_found);
    EXPECT_EQ(resolve_user(passwd, group, "root:nogroup").error().code, ErrorCode::not_found);
}

TEST(Users, refuses_the_number_that_means_unchanged) {
    EXPECT_FALSE(resolve_user(passwd, group, "4294967295"));
}

TEST(Users, of_workers_differ_by_service_and_stay_the_same) {
    const auto web = worker_user("web");
    EXPECT_EQ(web.uid, worker_user("web").uid);
    EXPECT_EQ(web.gid, web.uid);
    EXPECT_TRUE(web.groups.empty());
    EXPECT_NE(web.uid, worker_user("api").uid);
    for (const auto* name : {"web", "api", "a", "b", ""})
        EXPECT_GE(worker_user(name).uid, first_worker_uid) << name;
    // Volumes of instances belong to it: another number would take them away.
    EXPECT_EQ(web.uid, 190832278U);
}

TEST(Users, refuses_an_entry_without_numbers) {
    EXPECT_EQ(resolve_user(passwd, group, "broken").error().code, ErrorCode::corrupt_data);
}

} // namespace
} // namespace host_runner::agent

// SPDX-License-Identifier: Apache-2.0
#include "host_runner/host/account.hpp"

#include <cerrno>

#include <fcntl.h>
#include <unistd.h>

#include <gmock/gmock.h>

#include "fakes/host_fixture.hpp"
#include "host_runner/base/files.hpp"
#include "host_runner/base/unique_fd.hpp"

namespace host_runner::host {
namespace {

TEST(FindAccount, knows_root_by_name_and_by_number) {
    const auto by_name = find_account("root");
    ASSERT_TRUE(by_name) << by_name.error().describe();
    EXPECT_EQ(by_name->uid, 0U);
    const auto by_number = find_account("0");
    ASSERT_TRUE(by_number) << by_number.error().describe();
    EXPECT_EQ(*by_number, *by_name);
}

TEST(FindAccount, says_which_account_is_missing) {
    const auto account = find_account("no-such-account");
    ASSERT_FALSE(account);
    EXPECT_EQ(account.error().code, ErrorCode::not_found);
    EXPECT_THAT(account.error().message, testing::HasSubstr("no-such-account"));
}

TEST(FindLocalAccount, reads_the_file_of_accounts) {
    tests::HostFixture host;
    host.write("/etc/passwd", "root:x:0:0:root:/root:/bin/bash\n"
                              "host-runner:x:997:996::/var/lib/host-runner:/usr/sbin/nologin\n");
    const auto there = find_local_account("host-runner", host.root());
    ASSERT_TRUE(there) << there.error().describe();
    EXPECT_EQ(*there, (Account{"host-runner", 997, 996}));
    const auto missing = find_local_account("somebody", host.root());
    ASSERT_TRUE(missing) << missing.error().describe();
    EXPECT_EQ(*missing, std::nullopt);
    host.remove("/etc/passwd");
    EXPECT_EQ(find_local_account("host-runner", host.root()).value(), std::nullopt);
}

class ScopedAccountTest : public testing::Test {
protected:
    void SetUp() override {
        if (::geteuid() != 0)
            GTEST_SKIP() << "only root can act as another account";
        ASSERT_TRUE(write_file_atomic(secret_, "for root", 0600));
        ASSERT_TRUE(write_file_atomic(of_group_, "for a group", 0640));
        ASSERT_EQ(::chown(of_group_.c_str(), 0, group_), 0);
        ASSERT_EQ(::chmod(folder_.path().c_str(), 0755), 0);
    }
    static bool opens(const std::string& path) {
        return static_cast<bool>(UniqueFd(::open(path.c_str(), O_RDONLY | O_CLOEXEC)));
    }

    static constexpr gid_t group_ = 64001;
    const tests::TemporaryDirectory folder_;
    const std::string secret_ = folder_ / "secret";
    const std::string of_group_ = folder_ / "of-group";
    Account account_{"somebody", 64000, 64000};
};

TEST_F(ScopedAccountTest, is_held_to_the_account_s_rights_and_ends) {
    {
        const auto as_account = ScopedAccount::enter(account_);
        ASSERT_TRUE(as_account) << as_account.error().describe();
        EXPECT_FALSE(opens(secret_));
        EXPECT_FALSE(opens(of_group_));
    }
    EXPECT_TRUE(opens(secret_));
}

TEST_F(ScopedAccountTest, has_the_account_s_groups) {
    account_.groups = {group_};
    const auto as_account = ScopedAccount::enter(account_);
    ASSERT_TRUE(as_account) << as_account.error().describe();
    EXPECT_TRUE(opens(of_group_));
    EXPECT_FALSE(opens(secret_));
}

} // namespace
} // namespace host_runner::host

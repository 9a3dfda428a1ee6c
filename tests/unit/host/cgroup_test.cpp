// SPDX-License-Identifier: Apache-2.0
#include "host_runner/host/cgroup.hpp"

#include <map>
#include <set>

#include <fcntl.h>
#include <gmock/gmock.h>

#include "fakes/host_fixture.hpp"
#include "host_runner/base/files.hpp"
#include "host_runner/base/units.hpp"

namespace host_runner::host {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::Pair;

constexpr auto unit = "/sys/fs/cgroup/system.slice/host_runner@web.service";

/// What the kernel does with writes to a cgroup, as far as the runner relies on it.
class FakeKernel final : public SysfsWriter {
public:
    Result<void> write(const std::string& path, std::string_view text) override {
        if (refused.contains(base_name(path)))
            return fail(ErrorCode::permission_denied, "Cannot write to " + path);
        if (path.ends_with("/cgroup.subtree_control") && is_in_parent)
            return fail_errno("Cannot write to " + path, EBUSY);
        if (path.ends_with("/host_runner/cgroup.procs"))
            is_in_parent = false;
        written[path] = text;
        return {};
    }
    void pause(std::chrono::milliseconds /*duration*/) override {}

    bool is_in_parent = true; ///< This process is.
    std::set<std::string> refused;
    std::map<std::string, std::string> written;
};

class CgroupTest : public testing::Test {
protected:
    CgroupTest() {
        host_
            .write("/proc/self/mounts", "tmpfs /run tmpfs rw 0 0\n"
                                        "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n")
            .write("/proc/self/cgroup", "0::/system.slice/host_runner@web.service\n")
            .write("/run/systemd/system/x", "")
            .write(std::string(unit) + "/cgroup.controllers", "cpu io memory hugetlb pids\n");
    }
    [[nodiscard]] Result<std::string> find(bool is_marked = true) const {
        return find_delegated_cgroup(host_.root(),
                                     [is_marked](const std::string&) { return is_marked; });
    }
    /// The kernel fills a new cgroup with files; a folder has none.
    Result<VmCgroup> make() {
        host_.write(std::string(unit) + "/vm-0123456789ab/cgroup.procs", "");
        return VmCgroup::make(host_.root().path(unit), "vm-0123456789ab", {3 * gib, 514}, kernel_);
    }

    tests::HostFixture host_;
    FakeKernel kernel_;
};

TEST_F(CgroupTest, is_found_where_systemd_delegated_one) {
    const auto found = find();
    ASSERT_TRUE(found) << found.error().describe();
    EXPECT_EQ(*found, host_.root().path(unit));
}

TEST_F(CgroupTest, is_not_taken_from_systemd) {
    const auto found = find(false);
    ASSERT_FALSE(found);
    EXPECT_EQ(found.error().code, ErrorCode::unsupported);
    EXPECT_THAT(found.error().message, HasSubstr("not delegated"));
}

TEST_F(CgroupTest, is_the_container_s_where_no_systemd_runs) {
    host_.remove("/run/systemd");
    host_.write("/proc/self/cgroup", "1:name=x:/\n0::/\n");
    const auto found = find(false);
    ASSERT_TRUE(found) << found.error().describe();
    EXPECT_EQ(*found, host_.root().path("/sys/fs/cgroup"));
}

TEST_F(CgroupTest, needs_version_2) {
    host_.write("/proc/self/mounts", "cgroup /sys/fs/cgroup/pids cgroup rw,pids 0 0\n");
    EXPECT_EQ(find().error().code, ErrorCode::unsupported);
    host_.write("/proc/self/cgroup", "8:pids:/\n");
    EXPECT_EQ(find().error().code, ErrorCode::unsupported);
}

TEST_F(CgroupTest, gets_its_limits_once_this_process_has_stepped_aside) {
    const auto cgroup = make();
    ASSERT_TRUE(cgroup) << cgroup.error().describe();
    EXPECT_THAT(cgroup->problem(), IsEmpty());
    EXPECT_GE(cgroup->procs(), 0);
    const auto at = [&](const char* name) {
        return host_.root().path(std::string(unit) + name);
    };
    EXPECT_THAT(kernel_.written, Contains(Pair(at("/host_runner/cgroup.procs"), "0")));
    EXPECT_THAT(kernel_.written, Contains(Pair(at("/cgroup.subtree_control"), "+memory +pids")));
    EXPECT_THAT(kernel_.written,
                Contains(Pair(at("/vm-0123456789ab/memory.max"), std::to_string(3 * gib))));
    EXPECT_THAT(kernel_.written, Contains(Pair(at("/vm-0123456789ab/pids.max"), "514")));
}

TEST_F(CgroupTest, stays_where_nothing_is_in_the_way) {
    kernel_.is_in_parent = false;
    ASSERT_TRUE(make());
    EXPECT_THAT(kernel_.written, Not(Contains(Pair(HasSubstr("/host_runner/"), testing::_))));
}

TEST_F(CgroupTest, is_made_without_the_limits_that_the_kernel_refuses_and_says_so) {
    kernel_.refused = {"memory.max"};
    auto cgroup = make();
    ASSERT_TRUE(cgroup) << cgroup.error().describe();
    EXPECT_THAT(cgroup->problem(), HasSubstr("memory.max"));
    host_.write(std::string(unit) + "/cgroup.controllers", "hugetlb\n"); // as beside cgroup v1
    cgroup = make();
    ASSERT_TRUE(cgroup) << cgroup.error().describe();
    EXPECT_THAT(cgroup->problem(), HasSubstr("no controller memory"));
}

TEST_F(CgroupTest, is_removed_and_may_be_gone_already) {
    const auto folder = host_.root().path("/sys/fs/cgroup/empty");
    host_.write("/sys/fs/cgroup/empty/x", "").remove("/sys/fs/cgroup/empty/x");
    EXPECT_TRUE(remove_cgroup(folder));
    EXPECT_FALSE(path_exists(folder));
    EXPECT_TRUE(remove_cgroup(folder));
}

/// Answers like busctl, and remembers what it was asked.
TEST(SystemdScope, passes_systemd_s_refusal_on) {
    class NoBusctl final : public ProcessLauncher {
    public:
        Result<ChildProcess> launch(const ProcessSpec& spec) override {
            argv = spec.argv;
            ProcessSpec shell = spec;
            shell.argv = {"sh", "-c", "echo 'Call failed: Access denied' >&2; exit 1"};
            return ForkExecLauncher().launch(shell);
        }
        std::vector<std::string> argv;
    };
    NoBusctl launcher;
    const auto moved =
        move_to_systemd_scope(launcher, 4711, "host_runner-0123456789ab.scope", {3 * gib, 514});
    ASSERT_FALSE(moved);
    EXPECT_EQ(moved.error().code, ErrorCode::unavailable);
    EXPECT_THAT(moved.error().message, HasSubstr("Access denied"));
    EXPECT_THAT(launcher.argv, Contains("4711"));
    EXPECT_THAT(launcher.argv, Contains(std::to_string(3 * gib)));
}

} // namespace
} // namespace host_runner::host

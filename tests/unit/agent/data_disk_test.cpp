// SPDX-License-Identifier: Apache-2.0
#include "host_runner/agent/data_disk.hpp"

#include <gmock/gmock.h>

#include "fakes/fake_mounter.hpp"
#include "fakes/temporary_directory.hpp"
#include "host_runner/base/files.hpp"
#include "host_runner/base/units.hpp"

namespace host_runner::agent {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

/// Runs the test's own program in place of mke2fs.
class ReplacingLauncher final : public ProcessLauncher {
public:
    Result<ChildProcess> launch(const ProcessSpec& spec) override {
        commands.push_back(spec.argv);
        auto replaced = spec;
        replaced.argv = {"/bin/sh", "-c", script};
        return real_.launch(replaced);
    }
    std::string script = "exit 0";
    std::vector<std::vector<std::string>> commands;

private:
    ForkExecLauncher real_;
};

class DataDisk : public testing::Test {
protected:
    void make_disk(std::string_view bytes) {
        ASSERT_TRUE(write_file_atomic(folder / "vdb", bytes));
        request.device = folder / "vdb";
        request.mount_point = folder / "data";
    }
    Result<DataDiskState> set_up() {
        return set_up_data_disk(
            request, launcher, mounter, [this](std::string_view step) { steps.emplace_back(step); },
            [this](std::string_view text) { said.emplace_back(text); });
    }
    tests::TemporaryDirectory folder;
    DataDiskRequest request;
    ReplacingLauncher launcher;
    tests::FakeMounter mounter;
    std::vector<std::string> steps, said;
};

TEST_F(DataDisk, formats_a_blank_disk_and_mounts_it) {
    make_disk(std::string(2 * mib, '\0'));
    EXPECT_EQ(*set_up(), DataDiskState::plain);
    ASSERT_EQ(launcher.commands.size(), 1U);
    EXPECT_THAT(launcher.commands[0], testing::Contains(request.device));
    ASSERT_EQ(mounter.mounted.size(), 1U);
    EXPECT_EQ(mounter.mounted[0].type, "ext4");
    EXPECT_THAT(steps, ElementsAre("initializing data disk"));
    EXPECT_THAT(said, ElementsAre(HasSubstr("not encrypted")));
}

TEST_F(DataDisk, never_formats_a_disk_with_content) {
    make_disk("something");
    EXPECT_EQ(*set_up(), DataDiskState::plain);
    EXPECT_TRUE(launcher.commands.empty());
    EXPECT_THAT(steps, ElementsAre("mounting data disk"));
}

TEST_F(DataDisk, keeps_its_hands_off_a_disk_that_does_not_mount) {
    make_disk("something");
    mounter.failing_target = request.mount_point;
    const auto state = set_up();
    ASSERT_FALSE(state);
    EXPECT_THAT(state.error().hint, HasSubstr("never formatted"));
    EXPECT_TRUE(launcher.commands.empty());
}

TEST_F(DataDisk, tells_what_mke2fs_said) {
    make_disk(std::string(mib, '\0'));
    launcher.script = "echo the disk is on fire >&2; exit 1";
    const auto state = set_up();
    ASSERT_FALSE(state);
    EXPECT_THAT(state.error().message, HasSubstr("the disk is on fire"));
    EXPECT_TRUE(mounter.mounted.empty());
}

TEST_F(DataDisk, touches_nothing_in_a_trust_domain) {
    make_disk(std::string(mib, '\0'));
    request.is_tdx_guest = true;
    EXPECT_EQ(*set_up(), DataDiskState::none);
    EXPECT_TRUE(launcher.commands.empty());
    EXPECT_TRUE(mounter.mounted.empty());
    EXPECT_THAT(said, ElementsAre(HasSubstr("key release is not in this version")));
}

TEST_F(DataDisk, goes_without_a_disk_and_says_so) {
    EXPECT_EQ(*set_up(), DataDiskState::none);
    EXPECT_THAT(said, ElementsAre(HasSubstr("no data disk")));
}

TEST(TdxGuest, is_told_by_the_processor_flag_alone) {
    EXPECT_TRUE(is_tdx_guest("processor\t: 0\nflags\t\t: fpu tdx_guest\nbugs\t\t:\n"));
    EXPECT_TRUE(is_tdx_guest("processor\t: 0\nflags\t\t: fpu tdx_guest sse\n"));
    EXPECT_FALSE(is_tdx_guest("processor\t: 0\nflags\t\t: fpu tdx_guest_host\n"));
    EXPECT_FALSE(is_tdx_guest("model name\t: tdx_guest \nflags\t\t: fpu\n"));
    EXPECT_FALSE(is_tdx_guest(""));
}

} // namespace
} // namespace host_runner::agent

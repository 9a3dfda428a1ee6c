// SPDX-License-Identifier: Apache-2.0
#include "host_runner/host/open_files.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <gmock/gmock.h>

#include "fakes/host_fixture.hpp"
#include "fakes/temporary_directory.hpp"
#include "host_runner/base/unique_fd.hpp"

namespace host_runner::host {
namespace {

using testing::IsEmpty;
using testing::Pair;
using testing::UnorderedElementsAre;

TEST(FindHolders, finds_several_targets_in_one_pass) {
    tests::HostFixture machine;
    machine.write("/proc/12/comm", "train\n").link("/proc/12/fd/3", "/dev/nvidia0");
    machine.write("/proc/13/comm", "qemu-system-x86\n")
        .link("/proc/13/fd/4", "/dev/vfio/devices/vfio1")
        .link("/proc/13/fd/5", "/dev/nvidia0");
    machine.link("/proc/self/fd/3", "/dev/nvidia1"); // no process of its own
    EXPECT_THAT(
        find_holders({"/dev/nvidia0", "/dev/nvidia1", "/dev/vfio/devices/vfio1"}, machine.root()),
        UnorderedElementsAre(
            Pair("/dev/nvidia0", ProcessHolder{12, "train"}),
            Pair("/dev/vfio/devices/vfio1", ProcessHolder{13, "qemu-system-x86"})));
}

TEST(FindHolders, sees_a_file_that_this_process_has_open) {
    const tests::TemporaryDirectory folder;
    const auto path = folder / "node";
    const UniqueFd open(::open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600));
    EXPECT_EQ(find_holders({path}).at(path).pid, ::getpid());
}

TEST(FindHolders, finds_nothing_where_there_are_no_processes) {
    EXPECT_THAT(find_holders({"/dev/nvidia0"}, tests::HostFixture().root()), IsEmpty());
    EXPECT_THAT(find_holders({}), IsEmpty());
}

} // namespace
} // namespace host_runner::host

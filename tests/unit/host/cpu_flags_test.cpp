// SPDX-License-Identifier: Apache-2.0
#include "host_runner/host/cpu_flags.hpp"

#include <gmock/gmock.h>

#include "fakes/host_fixture.hpp"

namespace host_runner::host {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using tests::HostFixture;

TEST(ReadCpuFlags, gives_the_words_of_the_first_processor) {
    HostFixture host;
    host.write("/proc/cpuinfo", "processor\t: 0\nvmx flags\t: ept\nflags\t\t: fpu vmx  lm\n\n"
                                "processor\t: 1\nflags\t\t: svm\n");
    EXPECT_THAT(read_cpu_flags(host.root()).value(), ElementsAre("fpu", "lm", "vmx"));
}

TEST(ReadCpuFlags, reads_a_line_longer_than_one_block) {
    HostFixture host;
    host.cpu_flags(std::string(5000, 'x') + " vmx");
    EXPECT_TRUE(read_cpu_flags(host.root()).value().contains("vmx"));
}

TEST(ReadCpuFlags, is_empty_on_other_architectures) {
    HostFixture host;
    host.write("/proc/cpuinfo", "processor\t: 0\nFeatures\t: fp asimd\n");
    EXPECT_THAT(read_cpu_flags(host.root()).value(), IsEmpty());
}

TEST(ReadCpuFlags, fails_without_proc) {
    EXPECT_EQ(read_cpu_flags(HostFixture().root()).error().code, ErrorCode::not_found);
}

} // namespace
} // namespace host_runner::host

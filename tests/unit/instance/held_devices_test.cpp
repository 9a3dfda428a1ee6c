// SPDX-License-Identifier: Apache-2.0
//
// Whole runs with GPUs of a synthetic machine, a kernel that can fail at each write, and a stand-in
// for QEMU.
#include "host_runner/instance/held_devices.hpp"

#include <cstdlib>
#include <filesystem>

#include <gmock/gmock.h>

#include "fakes/image_directory.hpp"
#include "fakes/pci_machine.hpp"
#include "host_runner/base/units.hpp"
#include "host_runner/instance/run.hpp"

namespace host_runner::instance {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using tests::FakeKernel;
using tests::PciMachine;
using Kind = RunEvent::Kind;

const std::string gpu = "0000:5d:00.0";

class DeviceRunTest : public testing::Test {
protected:
    DeviceRunTest() : image_("native") {
        ::setenv("HOST_RUNNER_HOME", (folder_ / "state").c_str(),
                 1); // NOLINT(concurrency-mt-unsafe)
        std::filesystem::create_directory(folder_ / "cwd");
        std::filesystem::current_path(folder_ / "cwd");
        image_.make_own();
        image_.seal();
        machine_.write("/proc/meminfo", "MemTotal: 1000000 kB\nMemAvailable: 1000000 kB\n");
        machine_.write("/sys/class/iommu/dmar0/x", "");
        spec.image_path = image_.path();
        spec.tee = spec::Tee::none;
        spec.accelerator = spec::AcceleratorChoice::tcg;
        spec.qemu_path = FAKE_QEMU;
        spec.cpus = 1;
        spec.memory_bytes = 64 * mib;
        spec.disk_bytes = gib;
        spec.gpus = spec::parse_pci_addresses(gpu).value();
    }
    ~DeviceRunTest() override {
        std::filesystem::current_path("/");
    }

    Result<RunOutcome> run() {
        events_.clear();
        return run_instance(spec,
                            [this](const RunEvent& event) {
                                events_.push_back(event);
                                if (event.kind == Kind::started)
                                    during_ = machine_.driver_of(gpu);
                            },
                            {machine_.root(), &kernel_});
    }
    [[nodiscard]] std::vector<std::string> texts(Kind kind) const {
        std::vector<std::string> result;
        for (const auto& event : events_)
            if (event.kind == kind)
                result.push_back(event.text);
        return result;
    }
    [[nodiscard]] Registry registry() const {
        return Registry(folder_ / "state");
    }
    std::vector<std::string> reclaim() {
        std::vector<std::string> done;
        EXPECT_TRUE(reclaim_devices(
            registry(), kernel_, machine_.root(),
            [&](const ReclaimedDevice& one) {
                done.push_back(one.device.problem ? one.device.problem->message
                                                  : one.device.driver);
            },
            [](const Error& problem) { ADD_FAILURE() << problem.describe(); }));
        return done;
    }

    const tests::TemporaryDirectory folder_;
    tests::ImageDirectory image_;
    PciMachine machine_ = PciMachine::with_eight_gpus();
    FakeKernel kernel_{machine_};
    const std::vector<std::string> before_ = machine_.bindings();
    spec::VmSpec spec;
    std::vector<RunEvent> events_;
    std::string during_;
};

TEST_F(DeviceRunTest, has_its_gpu_while_it_runs_and_gives_it_back) {
    const auto outcome = run();
    ASSERT_TRUE(outcome) << outcome.error().describe();
    EXPECT_EQ(outcome->end.reason, EndReason::guest_shutdown) << outcome->end.detail;
    EXPECT_EQ(during_, "vfio-pci");
    EXPECT_EQ(machine_.bindings(), before_);
    const auto record = registry().find(outcome->id)->record;
    EXPECT_THAT(record.gpus, ElementsAre(spec.gpus.front()));
    EXPECT_THAT(record.argv, Contains(HasSubstr(R"("driver":"vfio-pci","host":"0000:5d:00.0")")));
    EXPECT_THAT(record.argv, Contains(HasSubstr("pci-hole64-size")));
    EXPECT_THAT(texts(Kind::notice), Contains("Bound to vfio-pci: 0000:5d:00.0"));
    EXPECT_THAT(texts(Kind::notice), Contains("Given back to the host: 0000:5d:00.0"));
    EXPECT_THAT(find_held_devices(registry(), machine_.root()).value(), IsEmpty());
    EXPECT_THAT(reclaim(), IsEmpty());
}

TEST_F(DeviceRunTest, takes_nothing_where_a_check_fails) {
    for (const auto& [address, words] : {std::pair("3a:00.0", "train"),
                                         {"2a:00.0", "0000:2b:00.0"},
                                         {"2b:00.0", "0000:2b:00.0"},
                                         {"ff:00.0", "0000:ff:00.0"}}) {
        spec.gpus = spec::parse_pci_addresses(address).value();
        const auto outcome = run();
        ASSERT_FALSE(outcome) << address;
        EXPECT_THAT(outcome.error().message, HasSubstr(words));
    }
    EXPECT_EQ(kernel_.writes(), 0);
    EXPECT_THAT(registry().list().value(), IsEmpty());
}

TEST_F(DeviceRunTest, whose_gpu_cannot_be_bound_leaves_nothing) {
    kernel_.refuse(gpu, "vfio-pci");
    const auto outcome = run();
    ASSERT_FALSE(outcome);
    EXPECT_THAT(outcome.error().message, HasSubstr("vfio-pci"));
    EXPECT_EQ(machine_.bindings(), before_);
    EXPECT_THAT(registry().list().value(), IsEmpty());
}

TEST_F(DeviceRunTest, that_fails_between_any_two_writes_can_be_reclaimed) {
    ASSERT_TRUE(run());
    const int all = kernel_.writes();
    ASSERT_GT(all, 4);
    for (int n = 0; n < all; ++n) {
        kernel_.die_before_write(kernel_.writes() + n);
        static_cast<void>(run());
        kernel_.live_again();
        static_cast<void>(reclaim());
        EXPECT_THAT(reclaim(), IsEmpty()) << "before write " << n;
        EXPECT_EQ(machine_.bindings(), before_) << "before write " << n;
    }
}

TEST_F(DeviceRunTest, of_a_gpu_that_a_killed_instance_holds_is_refused_until_it_is_reclaimed) {
    // As if it had been killed: its folder has the journal, and the lock is free.
    kernel_.on_write = [this](int, bool) {
        if (machine_.driver_of(gpu) == "vfio-pci")
            kernel_.die_before_write(0);
    };
    static_cast<void>(run());
    kernel_.on_write = {};
    kernel_.live_again();
    const auto held = find_held_devices(registry(), machine_.root()).value();
    ASSERT_EQ(held.size(), 1U);
    EXPECT_THAT(held.front().devices, ElementsAre(spec.gpus.front()));
    const auto refused = run();
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::wrong_state);
    EXPECT_THAT(refused.error().hint, HasSubstr("gpu reclaim"));
    EXPECT_THAT(reclaim(), ElementsAre("nvidia"));
    EXPECT_EQ(machine_.bindings(), before_);
    EXPECT_TRUE(run());
}

TEST_F(DeviceRunTest, of_all_gpus_names_what_stands_in_the_way) {
    spec.gpus.clear();
    spec.all_gpus = true;
    auto outcome = run();
    ASSERT_FALSE(outcome);
    EXPECT_THAT(outcome.error().message, testing::AnyOf(HasSubstr("train"), HasSubstr("2b:00.0")));
    // 8 BARs of 128 GiB and more are too much for 40 bits, which is what software emulation has.
    machine_.ends("4242");
    machine_.remove("0000:2b:00.0");
    outcome = run();
    ASSERT_FALSE(outcome);
    EXPECT_EQ(outcome.error().code, ErrorCode::resource_exhausted);
    EXPECT_EQ(kernel_.writes(), 0);
}

} // namespace
} // namespace host_runner::instance

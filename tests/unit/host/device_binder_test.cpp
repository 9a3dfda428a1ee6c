// SPDX-License-Identifier: Apache-2.0
#include "host_runner/host/device_binder.hpp"

#include <csignal>

#include <sys/wait.h>
#include <unistd.h>

#include <gmock/gmock.h>

#include "fakes/pci_machine.hpp"
#include "host_runner/base/files.hpp"
#include "host_runner/host/gpu.hpp"

namespace host_runner::host {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;
using tests::FakeKernel;
using tests::PciMachine;

std::vector<spec::PciAddress> at(std::string_view text) {
    return spec::parse_pci_addresses(text).value();
}

bool all_well(const std::vector<ReturnedDevice>& devices) {
    return std::none_of(devices.begin(), devices.end(),
                        [](const auto& one) { return one.problem.has_value(); });
}

class DeviceBinderTest : public testing::Test {
protected:
    [[nodiscard]] DeviceBinder binder() {
        return {kernel, journal, machine.root()};
    }
    std::vector<ReturnedDevice> reclaim() {
        auto returned = binder().give_back();
        EXPECT_TRUE(returned) << returned.error().describe();
        return returned.value_or(std::vector<ReturnedDevice>());
    }
    [[nodiscard]] DeviceJournal written() const {
        return decode_device_journal(read_file(journal, 1 << 20).value()).value();
    }

    PciMachine machine = PciMachine::with_eight_free_gpus();
    FakeKernel kernel{machine};
    const tests::TemporaryDirectory folder;
    const std::string journal = folder / "devices.json";
    const std::vector<std::string> first_state = machine.bindings();
};

TEST_F(DeviceBinderTest, takes_a_gpu_and_gives_it_back) {
    ASSERT_TRUE(binder().take(at("18:00.0,18:00.1")));
    EXPECT_EQ(machine.driver_of("0000:18:00.0"), "vfio-pci");
    EXPECT_EQ(machine.driver_of("0000:18:00.1"), "vfio-pci");
    const auto returned = reclaim();
    ASSERT_THAT(returned, SizeIs(2));
    EXPECT_TRUE(all_well(returned));
    EXPECT_EQ(returned[0].address, at("18:00.1").front()) << "the last taken first";
    EXPECT_EQ(returned[1].driver, "nvidia");
    EXPECT_EQ(machine.bindings(), first_state);
    EXPECT_FALSE(path_exists(journal));
}

TEST_F(DeviceBinderTest, writes_to_the_kernel_in_this_order) {
    ASSERT_TRUE(binder().take(at("18:00.0")));
    reclaim();
    const std::string device = "/sys/bus/pci/devices/0000:18:00.0";
    EXPECT_THAT(kernel.log(), ElementsAre(device + "/driver/unbind <- 0000:18:00.0",
                                          device + "/driver_override <- vfio-pci",
                                          "/sys/bus/pci/drivers_probe <- 0000:18:00.0",
                                          device + "/reset <- 1", device + "/driver_override <- ",
                                          device + "/driver/unbind <- 0000:18:00.0",
                                          "/sys/bus/pci/drivers/nvidia/bind <- 0000:18:00.0"));
}

TEST_F(DeviceBinderTest, has_the_journal_on_disk_before_each_write) {
    std::vector<std::string> steps;
    kernel.on_write = [&](int, bool is_done) {
        if (!is_done)
            steps.emplace_back(to_string(written().entries.front().step));
    };
    ASSERT_TRUE(binder().take(at("18:00.0")));
    EXPECT_EQ(written().entries.front().step, BinderStep::taken);
    reclaim();
    EXPECT_THAT(steps, ElementsAre("unbinding", "overriding", "probing", "resetting",
                                   "clearing_override", "releasing", "rebinding"));
}

TEST_F(DeviceBinderTest, resets_only_what_can_be_reset) {
    ASSERT_TRUE(binder().take(at("5d:00.0")));
    EXPECT_THAT(kernel.log(), Not(Contains(HasSubstr("reset"))));
    reclaim();
    EXPECT_EQ(machine.bindings(), first_state);
}

TEST_F(DeviceBinderTest, takes_all_eight_and_the_switches) {
    const auto selection = select_all_gpus(machine.root()).value();
    ASSERT_TRUE(binder().take(selection.addresses()));
    for (const auto& address : selection.addresses())
        EXPECT_EQ(machine.driver_of(format_pci_address(address)), "vfio-pci");
    EXPECT_THAT(reclaim(), SizeIs(13));
    EXPECT_EQ(machine.bindings(), first_state);
}

TEST_F(DeviceBinderTest, leaves_alone_what_was_on_vfio_before) {
    machine.link("/sys/bus/pci/devices/0000:18:00.0/driver", "../../drivers/vfio-pci");
    machine.write("/sys/bus/pci/devices/0000:18:00.0/driver_override", "vfio-pci\n");
    const auto before = machine.bindings();
    ASSERT_TRUE(binder().take(at("18:00.0")));
    EXPECT_FALSE(path_exists(journal));
    EXPECT_THAT(reclaim(), IsEmpty());
    EXPECT_EQ(machine.bindings(), before);
    EXPECT_THAT(kernel.log(), IsEmpty());
}

TEST_F(DeviceBinderTest, restores_every_first_state) {
    for (const auto* const driver : {"", "nvidia"})
        for (const auto* const wanted : {"(null)", "nvidia", "vfio-pci"}) {
            const std::string device = "/sys/bus/pci/devices/0000:18:00.0";
            std::filesystem::remove(machine.root().path(device + "/driver"));
            if (*driver != '\0')
                machine.link(device + "/driver", std::string("../../drivers/") + driver);
            machine.write(device + "/driver_override", std::string(wanted) + "\n");
            const auto before = machine.bindings();
            const auto taken = binder().take(at("18:00.0"));
            ASSERT_TRUE(taken) << taken.error().describe();
            EXPECT_NE(machine.bindings(), before);
            EXPECT_TRUE(all_well(reclaim()));
            EXPECT_EQ(machine.bindings(), before) << driver << " " << wanted;
        }
}

TEST_F(DeviceBinderTest, giving_back_twice_changes_nothing) {
    ASSERT_TRUE(binder().take(at("18:00.0")));
    reclaim();
    const auto writes = kernel.writes();
    EXPECT_THAT(reclaim(), IsEmpty());
    EXPECT_EQ(kernel.writes(), writes);
}

TEST_F(DeviceBinderTest, does_not_take_over_the_devices_of_an_earlier_run) {
    ASSERT_TRUE(binder().take(at("18:00.0")));
    const auto again = binder().take(at("9a:00.0"));
    ASSERT_FALSE(again);
    EXPECT_EQ(again.error().code, ErrorCode::wrong_state);
    EXPECT_THAT(again.error().hint, HasSubstr("gpu reclaim"));
}

// --- a kernel that is slow, or does not want to -------------------------------------------------

TEST_F(DeviceBinderTest, waits_for_drivers_that_bind_late) {
    kernel.bind_late(7);
    ASSERT_TRUE(binder().take(at("18:00.0,18:00.1,9a:00.0")));
    EXPECT_EQ(machine.driver_of("0000:9a:00.0"), "vfio-pci");
    EXPECT_TRUE(all_well(reclaim()));
    EXPECT_EQ(machine.bindings(), first_state);
}

TEST_F(DeviceBinderTest, gives_all_back_when_vfio_refuses_one) {
    kernel.refuse("0000:ab:00.0", "vfio-pci");
    const auto taken = binder().take(at("18:00.0,18:00.1,ab:00.0,ba:00.0"));
    ASSERT_FALSE(taken);
    EXPECT_EQ(taken.error().code, ErrorCode::timeout);
    EXPECT_THAT(taken.error().message,
                AllOf(HasSubstr("Cannot take 0000:ab:00.0"), HasSubstr("bound to no driver")));
    EXPECT_EQ(machine.bindings(), first_state);
    EXPECT_FALSE(path_exists(journal));
}

TEST_F(DeviceBinderTest, survives_a_bind_that_comes_after_it_gave_up) {
    kernel.bind_late(520); // 10.4 s
    const auto taken = binder().take(at("18:00.0"));
    EXPECT_FALSE(taken);
    for (int i = 0; i < 1000; ++i)
        kernel.pause(std::chrono::milliseconds(20));
    kernel.bind_late(0);
    reclaim();
    EXPECT_EQ(machine.bindings(), first_state);
}

TEST_F(DeviceBinderTest, keeps_in_the_journal_what_the_old_driver_refuses) {
    ASSERT_TRUE(binder().take(at("18:00.0,9a:00.0")));
    kernel.refuse("0000:9a:00.0", "nvidia");
    const auto returned = reclaim();
    ASSERT_THAT(returned, SizeIs(2));
    ASSERT_TRUE(returned[0].problem);
    EXPECT_THAT(returned[0].problem->message, HasSubstr("Cannot give back 0000:9a:00.0"));
    EXPECT_FALSE(returned[1].problem) << "the others do not suffer from it";
    EXPECT_EQ(machine.driver_of("0000:18:00.0"), "nvidia");
    ASSERT_THAT(written().entries, SizeIs(1));
    EXPECT_EQ(written().entries.front().address, at("9a:00.0").front());

    kernel.accept_again();
    EXPECT_TRUE(all_well(reclaim()));
    EXPECT_EQ(machine.bindings(), first_state);
    EXPECT_FALSE(path_exists(journal));
}

TEST_F(DeviceBinderTest, says_when_it_cannot_undo_what_it_began) {
    kernel.refuse("0000:9a:00.0", "vfio-pci");
    kernel.refuse("0000:18:00.0", "nvidia");
    const auto taken = binder().take(at("18:00.0,9a:00.0"));
    ASSERT_FALSE(taken);
    EXPECT_THAT(taken.error().hint, HasSubstr("not all devices could be given back: host_runner "
                                              "gpu reclaim"));
    EXPECT_TRUE(path_exists(journal));
}

TEST_F(DeviceBinderTest, names_the_module_that_is_not_loaded_any_more) {
    ASSERT_TRUE(binder().take(at("18:00.0")));
    machine.remove_driver("nvidia");
    const auto returned = reclaim();
    ASSERT_THAT(returned, SizeIs(1));
    ASSERT_TRUE(returned[0].problem);
    EXPECT_THAT(returned[0].problem->hint, HasSubstr("load the driver nvidia"));
    machine.add_driver("nvidia");
    EXPECT_TRUE(all_well(reclaim()));
    EXPECT_EQ(machine.bindings(), first_state);
}

TEST_F(DeviceBinderTest, waits_until_the_last_user_has_closed_it) {
    ASSERT_TRUE(binder().take(at("18:00.0")));
    machine.opens("55", "qemu", "/dev/vfio/devices/vfio24");
    int pauses = 0;
    kernel.on_pause = [&] {
        if (++pauses == 3)
            machine.ends("55");
    };
    EXPECT_TRUE(all_well(reclaim()));
    EXPECT_EQ(pauses, 3);
    EXPECT_EQ(machine.bindings(), first_state);
}

TEST_F(DeviceBinderTest, does_not_pull_a_device_away_from_a_process) {
    ASSERT_TRUE(binder().take(at("18:00.0")));
    machine.opens("55", "qemu", "/dev/vfio/devices/vfio24");
    const auto returned = reclaim();
    ASSERT_THAT(returned, SizeIs(1));
    ASSERT_TRUE(returned[0].problem);
    EXPECT_EQ(returned[0].problem->code, ErrorCode::unavailable);
    EXPECT_THAT(returned[0].problem->message, HasSubstr("qemu (pid 55)"));
    EXPECT_EQ(returned[0].driver, "vfio-pci");
    machine.ends("55");
    EXPECT_TRUE(all_well(reclaim()));
    EXPECT_EQ(machine.bindings(), first_state);
}

// --- others -------------------------------------------------------------------------------------

TEST_F(DeviceBinderTest, respects_what_somebody_else_did_meanwhile) {
    ASSERT_TRUE(binder().take(at("18:00.0")));
    machine.add_driver("nouveau");
    machine.link("/sys/bus/pci/devices/0000:18:00.0/driver", "../../drivers/nouveau");
    machine.write("/sys/bus/pci/devices/0000:18:00.0/driver_override", "nouveau\n");
    const auto returned = reclaim();
    ASSERT_THAT(returned, SizeIs(1));
    EXPECT_FALSE(returned[0].problem);
    EXPECT_THAT(returned[0].note, HasSubstr("somebody else has bound it to nouveau"));
    EXPECT_EQ(machine.driver_of("0000:18:00.0"), "nouveau");
    EXPECT_FALSE(path_exists(journal));
}

TEST_F(DeviceBinderTest, forgets_a_device_that_was_pulled_out) {
    ASSERT_TRUE(binder().take(at("18:00.0")));
    machine.remove("0000:18:00.0");
    const auto returned = reclaim();
    ASSERT_THAT(returned, SizeIs(1));
    EXPECT_FALSE(returned[0].problem);
    EXPECT_THAT(returned[0].note, HasSubstr("not in this machine"));
    EXPECT_FALSE(path_exists(journal));
}

TEST_F(DeviceBinderTest, ignores_a_journal_from_before_a_restart) {
    ASSERT_TRUE(binder().take(at("18:00.0")));
    machine.write("/proc/sys/kernel/random/boot_id", "another\n");
    EXPECT_FALSE(read_device_journal(journal, machine.root()).value());
    const auto writes = kernel.writes();
    EXPECT_THAT(reclaim(), IsEmpty());
    EXPECT_EQ(kernel.writes(), writes);
    EXPECT_FALSE(path_exists(journal));
}

TEST_F(DeviceBinderTest, refuses_a_journal_that_is_none) {
    ASSERT_TRUE(write_file_atomic(journal, "{"));
    const auto returned = binder().give_back();
    ASSERT_FALSE(returned);
    EXPECT_EQ(returned.error().code, ErrorCode::corrupt_data);
    EXPECT_THAT(returned.error().message, HasSubstr(journal));
    EXPECT_FALSE(binder().take(at("18:00.0")));
    EXPECT_EQ(machine.bindings(), first_state);
}

TEST_F(DeviceBinderTest, touches_nothing_where_the_journal_cannot_be_written) {
    DeviceBinder binder(kernel, folder / "missing/devices.json", machine.root());
    EXPECT_FALSE(binder.take(at("18:00.0")));
    EXPECT_EQ(kernel.writes(), 0);
    EXPECT_EQ(machine.bindings(), first_state);
}

// --- the end may come at any moment -------------------------------------------------------------

/// Runs `body` in a child that kills itself with SIGKILL at the n-th write, before or after it.
/// @return whether it came that far
bool dies_at(FakeKernel& kernel, int n, bool is_done, const std::function<void()>& body) {
    const pid_t child = ::fork();
    if (child == 0) {
        const int first = kernel.writes();
        kernel.on_write = [=](int write, bool done) {
            if (write - first == n && done == is_done)
                ::raise(SIGKILL);
        };
        body();
        ::_exit(0);
    }
    int status = 0;
    EXPECT_EQ(::waitpid(child, &status, 0), child);
    return WIFSIGNALED(status);
}

TEST_F(DeviceBinderTest, a_kill_between_any_two_writes_of_taking_is_undone_by_a_reclaim) {
    const auto devices = at("18:00.0,18:00.1,5d:00.0,05:00.0");
    int deaths = 0;
    for (const bool is_done : {false, true})
        for (int n = 0;; ++n) {
            const bool died =
                dies_at(kernel, n, is_done, [&] { static_cast<void>(binder().take(devices)); });
            EXPECT_TRUE(all_well(reclaim()));
            EXPECT_EQ(machine.bindings(), first_state) << "killed at write " << n;
            EXPECT_FALSE(path_exists(journal));
            if (!died)
                break;
            ++deaths;
        }
    EXPECT_EQ(deaths, 2 * 15);
}

TEST_F(DeviceBinderTest, a_kill_between_any_two_writes_of_giving_back_is_undone_by_a_second_one) {
    const auto devices = at("18:00.0,18:00.1,5d:00.0");
    int deaths = 0;
    for (const bool is_done : {false, true})
        for (int n = 0;; ++n) {
            ASSERT_TRUE(binder().take(devices));
            const bool died =
                dies_at(kernel, n, is_done, [&] { static_cast<void>(binder().give_back()); });
            EXPECT_TRUE(all_well(reclaim()));
            EXPECT_EQ(machine.bindings(), first_state) << "killed at write " << n;
            EXPECT_FALSE(path_exists(journal));
            if (!died)
                break;
            ++deaths;
        }
    EXPECT_EQ(deaths, 2 * 9);
}

TEST_F(DeviceBinderTest, a_kernel_that_takes_no_more_writes_leaves_all_in_the_journal) {
    for (int n = 0; n < 12; ++n) {
        kernel.die_before_write(kernel.writes() + n);
        const auto taken = binder().take(at("18:00.0,18:00.1,5d:00.0"));
        kernel.live_again();
        if (taken) {
            EXPECT_EQ(n, 11);
        } else {
            EXPECT_THAT(taken.error().message, HasSubstr("The process is dead"));
        }
        EXPECT_TRUE(all_well(reclaim()));
        EXPECT_EQ(machine.bindings(), first_state) << "dead from write " << n;
    }
}

// --- the journal --------------------------------------------------------------------------------

TEST(DeviceJournal, comes_back_as_it_was) {
    const DeviceJournal journal{"boot",
                                {{at("18:00.0").front(), "nvidia", "", BinderStep::probing},
                                 {at("0001:05:00.1").front(), "", "x", BinderStep::rebinding}}};
    EXPECT_EQ(decode_device_journal(encode_device_journal(journal)).value(), journal);
}

TEST(DeviceJournal, refuses_other_forms) {
    const auto one = [](const std::string& device) {
        return R"({"schema_version":1,"boot_id":"b","devices":[)" + device + "]}";
    };
    ASSERT_TRUE(decode_device_journal(
        one(R"({"address":"0000:18:00.0","driver":"a","driver_override":"","step":"taken"})")));
    for (
        const auto& text :
        {std::string(), std::string("[]"), std::string("{}"), std::string(300UL * 1024, ' '),
         std::string(R"({"schema_version":2,"boot_id":"b","devices":[]})"),
         std::string(R"({"schema_version":1,"boot_id":"b","devices":{}})"), one("1"),
         one(R"({"address":"x","driver":"a","driver_override":"","step":"taken"})"),
         one(R"({"address":"0000:18:00.0","driver":"a/../b","driver_override":"","step":"taken"})"),
         one(R"({"address":"0000:18:00.0","driver":"..","driver_override":"","step":"taken"})"),
         one(R"({"address":"0000:18:00.0","driver":"a","driver_override":"\n","step":"taken"})"),
         one(R"({"address":"0000:18:00.0","driver":"a","driver_override":"","step":"x"})"),
         one(R"({"address":"0000:18:00.0","driver":1,"driver_override":"","step":"taken"})")}) {
        const auto journal = decode_device_journal(text);
        ASSERT_FALSE(journal) << text;
        EXPECT_EQ(journal.error().code, ErrorCode::corrupt_data);
    }
}

TEST(KernelSysfs, writes_to_files_that_are_there_and_makes_none) {
    const tests::TemporaryDirectory folder;
    KernelSysfs kernel;
    const auto missing = kernel.write(folder / "bind", "x");
    ASSERT_FALSE(missing);
    EXPECT_EQ(missing.error().code, ErrorCode::not_found);
    EXPECT_FALSE(path_exists(folder / "bind"));
    ASSERT_TRUE(write_file_atomic(folder / "bind", ""));
    EXPECT_TRUE(kernel.write(folder / "bind", "0000:18:00.0"));
    EXPECT_EQ(read_file(folder / "bind", 100).value(), "0000:18:00.0");
}

} // namespace
} // namespace host_runner::host

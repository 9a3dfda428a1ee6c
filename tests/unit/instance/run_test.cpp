// SPDX-License-Identifier: Apache-2.0
#include "host_runner/instance/run.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "fakes/image_directory.hpp"
#include "fakes/pci_machine.hpp"
#include "fakes/tiny_kernel.hpp"
#include "host_runner/base/files.hpp"
#include "host_runner/base/units.hpp"
#include "host_runner/instance/registry.hpp"

namespace host_runner::instance {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using tests::TinyGuest;

using Kind = RunEvent::Kind;

/// Whole runs with the installed QEMU and a guest of a few instructions.
class RunTest : public testing::Test {
protected:
    RunTest() : image_("native") {
        ::setenv("HOST_RUNNER_HOME", (folder_ / "state").c_str(),
                 1); // NOLINT(concurrency-mt-unsafe)
        std::filesystem::create_directory(folder_ / "cwd");
        std::filesystem::current_path(folder_ / "cwd");
        image_.make_own();
        guest_is(TinyGuest::powers_off);
        spec.image_path = image_.path();
        spec.tee = spec::Tee::none;
        spec.accelerator = spec::AcceleratorChoice::tcg;
        spec.cpus = 1;
        spec.memory_bytes = 64 * mib;
        spec.disk_bytes = 1 * gib;
    }
    ~RunTest() override {
        std::filesystem::current_path("/");
    }
    void SetUp() override {
        if (std::system("command -v qemu-system-x86_64 >/dev/null") != 0) // NOLINT(cert-env33-c)
            GTEST_SKIP() << "qemu-system-x86_64 is not installed";
    }

    void guest_is(TinyGuest guest) {
        image_.write("bzImage", tests::tiny_kernel(guest));
        image_.seal();
    }
    Result<RunOutcome> run() {
        return run_instance(
            spec,
            [this](const RunEvent& event) {
                events_.push_back(event);
                if (on_event_)
                    on_event_(event);
            },
            devices_);
    }
    std::vector<std::string> texts(Kind kind) const {
        std::vector<std::string> result;
        for (const auto& event : events_)
            if (event.kind == kind)
                result.push_back(event.text);
        return result;
    }
    std::vector<std::string> instances() const {
        return list_directory(folder_ / "state/instances").value_or(std::vector<std::string>{});
    }
    std::vector<std::string> files_of(const std::string& id) const {
        return list_directory(folder_ / "state/instances/" + id)
            .value_or(std::vector<std::string>{});
    }

    /// Those that run in this test's state folder.
    [[nodiscard]] std::size_t qemu_processes() const {
        std::size_t count = 0;
        for (const auto& entry : list_directory("/proc").value_or(std::vector<std::string>{})) {
            const auto line = read_file("/proc/" + entry + "/cmdline", 1 << 20).value_or("");
            if (line.find("qemu-system") != std::string::npos &&
                line.find(folder_.path()) != std::string::npos)
                ++count;
        }
        return count;
    }
    /// For what the kernel does without telling us: within 10 s.
    static bool becomes_true(const std::function<bool()>& condition) {
        const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
        while (!condition()) {
            if (std::chrono::steady_clock::now() > deadline)
                return false;
            ::sched_yield();
        }
        return true;
    }

    const tests::TemporaryDirectory folder_;
    tests::ImageDirectory image_;
    spec::VmSpec spec;
    DeviceEdge devices_;
    std::vector<RunEvent> events_;
    std::function<void(const RunEvent&)> on_event_;
};

TEST_F(RunTest, ends_with_its_guest_and_leaves_record_and_logs) {
    const auto outcome = run();
    ASSERT_TRUE(outcome) << outcome.error().describe();
    EXPECT_EQ(outcome->end.reason, EndReason::guest_shutdown) << outcome->end.detail;
    EXPECT_EQ(outcome->end.exit_code, ExitCode::success);
    EXPECT_THAT(texts(Kind::created), ElementsAre(outcome->id));
    EXPECT_EQ(texts(Kind::started).size(), 1U);
    EXPECT_THAT(files_of(outcome->id),
                ElementsAre("events.jsonl", "instance.json", "lock", "qemu_stderr.log",
                            "qemu_stdout.log", "serial.log"));
    const auto record = Registry(folder_ / "state").find(outcome->id);
    ASSERT_TRUE(record) << record.error().describe();
    EXPECT_EQ(record->state, State::stopped);
    EXPECT_EQ(record->record.tee, "none");
    EXPECT_EQ(record->record.accelerator, "tcg");
    EXPECT_THAT(record->record.argv, Contains("-kernel"));
}

TEST_F(RunTest, gives_a_qemu_of_another_account_only_what_it_needs) {
    if (::geteuid() != 0)
        GTEST_SKIP() << "only root can run QEMU as another account";
    guest_is(TinyGuest::waits);
    spec.user = "nobody";
    // Nothing on the way to the image or the instance lets nobody in.
    ASSERT_EQ(::chmod(image_.path().c_str(), 0700), 0);
    std::string status;
    std::string maps;
    on_event_ = [&](const RunEvent& event) {
        if (event.kind != Kind::started)
            return;
        status = read_file("/proc/" + event.text + "/status", 1 << 16).value_or("");
        ::kill(::getpid(), SIGTERM);
    };
    const auto outcome = run();
    ASSERT_TRUE(outcome) << outcome.error().describe();
    EXPECT_EQ(outcome->end.reason, EndReason::stop_requested) << outcome->end.detail;
    EXPECT_THAT(status, HasSubstr("\nUid:\t65534\t65534\t65534\t65534\n"));
    EXPECT_THAT(status, HasSubstr("\nGroups:\t \n"));
    EXPECT_THAT(status, HasSubstr("\nNoNewPrivs:\t1\n"));
    EXPECT_THAT(status, HasSubstr("\nSeccomp:\t2\n"));
    const auto record = Registry(folder_ / "state").find(outcome->id);
    ASSERT_TRUE(record) << record.error().describe();
    EXPECT_EQ(record->record.qemu_user, "nobody");
    EXPECT_EQ(read_file(record->record.stderr_log, 1 << 16).value_or("?").find("denied"),
              std::string::npos);
}

TEST_F(RunTest, names_an_account_that_is_missing_before_anything_is_taken) {
    if (::geteuid() != 0)
        GTEST_SKIP() << "only root can run QEMU as another account";
    spec.user = "no-such-account";
    const auto outcome = run();
    ASSERT_FALSE(outcome);
    EXPECT_EQ(outcome.error().code, ErrorCode::not_found);
    EXPECT_THAT(instances(), IsEmpty());
}

TEST_F(RunTest, tells_a_guest_that_resets_itself) {
    guest_is(TinyGuest::resets);
    const auto outcome = run();
    ASSERT_TRUE(outcome) << outcome.error().describe();
    EXPECT_EQ(outcome->end.reason, EndReason::guest_reset);
    EXPECT_EQ(outcome->end.exit_code, ExitCode::guest_reset);
}

TEST_F(RunTest, stops_on_sigterm) {
    guest_is(TinyGuest::waits);
    on_event_ = [](const RunEvent& event) {
        if (event.kind == Kind::started)
            ::kill(::getpid(), SIGTERM);
    };
    const auto outcome = run();
    ASSERT_TRUE(outcome) << outcome.error().describe();
    EXPECT_EQ(outcome->end.reason, EndReason::stop_requested);
    EXPECT_EQ(outcome->end.exit_code, ExitCode::success);
    EXPECT_THAT(texts(Kind::stop_step), ElementsAre("QMP quit"));
}

TEST_F(RunTest, reports_a_killed_qemu) {
    guest_is(TinyGuest::waits);
    on_event_ = [](const RunEvent& event) {
        if (event.kind == Kind::started)
            ::kill(std::stoi(event.text), SIGKILL);
    };
    const auto outcome = run();
    ASSERT_TRUE(outcome) << outcome.error().describe();
    EXPECT_EQ(outcome->end.reason, EndReason::qemu_died);
    EXPECT_THAT(outcome->end.detail, HasSubstr("signal 9"));
}

TEST_F(RunTest, keeps_disk_and_identity_of_a_named_instance) {
    spec.name = "keeper";
    const auto first = run();
    ASSERT_TRUE(first) << first.error().describe();
    EXPECT_THAT(files_of(first->id), Contains("disk.qcow2"));
    EXPECT_THAT(files_of(first->id), Not(Contains("share.img")));
    const auto second = run();
    ASSERT_TRUE(second) << second.error().describe();
    EXPECT_EQ(second->id, first->id);
}

TEST_F(RunTest, shows_the_qemu_logs_in_the_current_folder) {
    ASSERT_TRUE(run());
    EXPECT_THAT(read_file(folder_ / "cwd/qemu_stderr.log", 4096).value_or(""),
                HasSubstr("===== boot @ "));
}

TEST_F(RunTest, picks_a_free_port_for_zero_and_says_which) {
    spec.ports = {{spec::Protocol::tcp, "127.0.0.1", 0, 80}};
    const auto outcome = run();
    ASSERT_TRUE(outcome) << outcome.error().describe();
    ASSERT_EQ(texts(Kind::port).size(), 1U);
    EXPECT_THAT(texts(Kind::port)[0], Not(HasSubstr(":0:")));
}

TEST_F(RunTest, refuses_a_taken_port_and_leaves_nothing) {
    const UniqueFd holder(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    ASSERT_EQ(::bind(holder.get(), reinterpret_cast<const sockaddr*>(&address), size), 0);
    ASSERT_EQ(::listen(holder.get(), 1), 0);
    ASSERT_EQ(::getsockname(holder.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
    spec.ports = {{spec::Protocol::tcp, "127.0.0.1", ntohs(address.sin_port), 80}};
    const auto outcome = run();
    ASSERT_FALSE(outcome);
    EXPECT_EQ(outcome.error().code, ErrorCode::already_exists);
    EXPECT_THAT(outcome.error().message, HasSubstr(std::to_string(ntohs(address.sin_port))));
    EXPECT_THAT(instances(), IsEmpty());
    EXPECT_THAT(list_directory(folder_ / "cwd").value(), IsEmpty());
}

TEST_F(RunTest, refuses_tdx_on_a_host_without_it_before_taking_anything) {
    if (path_exists("/sys/module/kvm_intel/parameters/tdx"))
        GTEST_SKIP() << "this host may have TDX";
    spec.tee = spec::Tee::tdx;
    spec.accelerator = spec::AcceleratorChoice::automatic;
    const auto outcome = run();
    ASSERT_FALSE(outcome);
    EXPECT_EQ(outcome.error().code, ErrorCode::unsupported);
    EXPECT_THAT(outcome.error().describe(), HasSubstr("--tee none"));
    EXPECT_FALSE(path_exists(folder_ / "state"));
}

TEST_F(RunTest, reports_a_qemu_that_refuses_to_start) {
    image_.write("bzImage", "no kernel");
    image_.seal();
    const auto outcome = run();
    ASSERT_TRUE(outcome) << outcome.error().describe();
    EXPECT_EQ(outcome->end.reason, EndReason::qemu_start_failed);
    EXPECT_EQ(outcome->end.exit_code, ExitCode::qemu_start_failed);
    EXPECT_THAT(outcome->end.detail, HasSubstr("kernel"));
}

TEST_F(RunTest, clears_up_after_a_runner_that_was_killed) {
    const auto dead = run();
    ASSERT_TRUE(dead) << dead.error().describe();
    const InstancePaths paths(folder_ / "state/instances/" + dead->id);
    ASSERT_TRUE(write_file_atomic(paths.data_disk(), "left behind"));
    ASSERT_TRUE(write_file_atomic(paths.share_image(), "left behind"));
    ASSERT_TRUE(run());
    EXPECT_THAT(files_of(dead->id), Not(Contains("disk.qcow2")));
    EXPECT_THAT(files_of(dead->id), Not(Contains("share.img")));
    EXPECT_THAT(files_of(dead->id), Contains("instance.json"));
}

TEST_F(RunTest, writes_its_events_down) {
    const auto outcome = run();
    ASSERT_TRUE(outcome);
    const auto text =
        read_file(folder_ / "state/instances/" + outcome->id + "/events.jsonl", 1 << 20).value();
    EXPECT_THAT(text, HasSubstr(R"("kind":"started")"));
    EXPECT_THAT(text, HasSubstr(R"("kind":"ended")"));
}

TEST_F(RunTest, restarts_a_failed_guest_with_the_same_id_and_port) {
    guest_is(TinyGuest::resets);
    spec.restart = {true, 1};
    spec.ports = {{spec::Protocol::tcp, "127.0.0.1", 0, 80}};
    on_event_ = [](const RunEvent& event) {
        if (event.kind == Kind::restart)
            ::kill(::getpid(), SIGINT); // five seconds are too long for a test
    };
    const auto outcome = run();
    ASSERT_TRUE(outcome);
    EXPECT_EQ(texts(Kind::restart).size(), 1U);
    EXPECT_EQ(outcome->end.reason, EndReason::stop_requested);
}

/// Runs with devices of a synthetic machine, and a QEMU that says it has iommufd and starts without
/// the devices.
class GpuRunTest : public RunTest {
protected:
    GpuRunTest() {
        const auto qemu = folder_ / "qemu";
        std::ofstream(qemu) << R"(#!/bin/bash
case "$*" in
*"-qmp stdio"*) sed 's/"iommufd"/"secret"/' | qemu-system-x86_64 "$@"; exit ;;
esac
words=()
while [ $# -gt 0 ]; do
    case "$1 $2" in
    *iommufd0* | *pcie-root-port*) shift 2 ;;
    *) words+=("$1"); shift ;;
    esac
done
exec qemu-system-x86_64 "${words[@]}"
)";
        std::filesystem::permissions(qemu, std::filesystem::perms::owner_all);
        spec.qemu_path = qemu;
        machine_.write("/proc/meminfo", "MemTotal: 1000000 kB\nMemAvailable: 1000000 kB\n");
        machine_.write("/sys/class/iommu/dmar0/x", "");
        devices_ = {machine_.root(), &kernel_};
        spec.gpus = spec::parse_pci_addresses("18:00.0,05:00.0").value();
    }
    [[nodiscard]] bool is_as_before() const {
        return machine_.bindings() == first_state_;
    }

    tests::PciMachine machine_ = tests::PciMachine::with_eight_free_gpus();
    tests::FakeKernel kernel_{machine_};
    const std::vector<std::string> first_state_ = machine_.bindings();
};

TEST_F(GpuRunTest, has_the_devices_while_it_runs_and_gives_them_back) {
    std::string driver;
    std::string companion;
    on_event_ = [&](const RunEvent& event) {
        if (event.kind == Kind::started) {
            driver = machine_.driver_of("0000:18:00.0");
            companion = machine_.driver_of("0000:18:00.1");
        }
    };
    const auto outcome = run();
    ASSERT_TRUE(outcome) << outcome.error().describe();
    EXPECT_EQ(outcome->end.reason, EndReason::guest_shutdown) << outcome->end.detail;
    EXPECT_EQ(driver, "vfio-pci");
    EXPECT_EQ(companion, "vfio-pci");
    EXPECT_TRUE(is_as_before());
    EXPECT_THAT(texts(Kind::notice),
                Contains("Bound to vfio-pci: 0000:18:00.0, 0000:05:00.0, 0000:18:00.1"));
    EXPECT_THAT(texts(Kind::notice),
                Contains("Given back to the host: 0000:18:00.1, 0000:05:00.0, 0000:18:00.0"));
    const auto record = Registry(folder_ / "state").find(outcome->id).value().record;
    EXPECT_EQ(record.gpus, spec.gpus);
    EXPECT_THAT(record.argv, Contains("q35-pcihost.pci-hole64-size=0x8000000000"));
    EXPECT_THAT(record.argv, Contains(R"({"driver":"vfio-pci","host":"0000:18:00.0","bus":"pci.1",)"
                                      R"("iommufd":"iommufd0"})"));
    EXPECT_THAT(files_of(outcome->id), Not(Contains("devices.json")));
}

TEST_F(GpuRunTest, gives_them_back_after_a_signal_and_after_qemu_has_died) {
    guest_is(TinyGuest::waits);
    for (const bool is_signal : {true, false}) {
        on_event_ = [&](const RunEvent& event) {
            if (event.kind == Kind::started)
                ::kill(is_signal ? ::getpid() : std::stoi(event.text),
                       is_signal ? SIGTERM : SIGKILL);
        };
        const auto outcome = run();
        ASSERT_TRUE(outcome) << outcome.error().describe();
        EXPECT_EQ(outcome->end.reason,
                  is_signal ? EndReason::stop_requested : EndReason::qemu_died);
        EXPECT_TRUE(is_as_before());
    }
}

TEST_F(GpuRunTest, gives_them_back_when_the_start_fails) {
    kernel_.refuse("0000:05:00.0", "vfio-pci");
    const auto refused = run();
    ASSERT_FALSE(refused);
    EXPECT_THAT(refused.error().message, HasSubstr("Cannot take 0000:05:00.0"));
    EXPECT_TRUE(is_as_before());
    EXPECT_THAT(instances(), IsEmpty());

    kernel_.accept_again();
    spec.qemu_path = folder_ / "qemu";
    image_.write("bzImage", "no kernel");
    image_.seal();
    const auto outcome = run();
    ASSERT_TRUE(outcome) << outcome.error().describe();
    EXPECT_EQ(outcome->end.reason, EndReason::qemu_start_failed);
    EXPECT_TRUE(is_as_before());
}

TEST_F(GpuRunTest, keeps_the_folder_of_a_start_that_could_not_give_all_back) {
    kernel_.refuse("0000:05:00.0", "vfio-pci");
    kernel_.refuse("0000:18:00.0", "nvidia");
    const auto refused = run();
    ASSERT_FALSE(refused);
    EXPECT_THAT(refused.error().hint, HasSubstr("gpu reclaim"));
    ASSERT_EQ(instances().size(), 1U);
    EXPECT_THAT(files_of(instances()[0]), Contains("devices.json"));
    const auto left = Registry(folder_ / "state").find(instances()[0]);
    ASSERT_TRUE(left && left->end);
    EXPECT_EQ(left->end->reason, EndReason::start_failed);
}

TEST_F(GpuRunTest, takes_nothing_that_is_in_use) {
    machine_.opens("77", "train", "/dev/vfio/30");
    const auto refused = run();
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::already_exists);
    EXPECT_THAT(refused.error().message, HasSubstr("train (pid 77)"));
    EXPECT_EQ(kernel_.writes(), 0);
    EXPECT_THAT(instances(), IsEmpty());
}

TEST_F(GpuRunTest, of_a_killed_runner_are_left_to_a_reclaim_or_to_the_next_run_of_that_name) {
    guest_is(TinyGuest::waits);
    spec.name = "web";
    const pid_t runner = ::fork();
    ASSERT_GE(runner, 0);
    if (runner == 0) {
        on_event_ = [&](const RunEvent& event) {
            if (event.kind == Kind::started)
                ::kill(::getpid(), SIGKILL);
        };
        static_cast<void>(run());
        ::_exit(0);
    }
    ASSERT_EQ(::waitpid(runner, nullptr, 0), runner);
    EXPECT_TRUE(becomes_true([&] { return qemu_processes() == 0; }));
    EXPECT_EQ(machine_.driver_of("0000:18:00.0"), "vfio-pci");
    guest_is(TinyGuest::powers_off);

    spec.name = "other";
    const auto other = run();
    ASSERT_FALSE(other);
    EXPECT_EQ(other.error().code, ErrorCode::wrong_state);
    EXPECT_THAT(other.error().message, HasSubstr("was not given back by instance web ("));
    EXPECT_THAT(other.error().hint, HasSubstr("gpu reclaim"));

    spec.name = "web";
    const auto same = run();
    ASSERT_TRUE(same) << same.error().describe();
    EXPECT_THAT(texts(Kind::notice), Contains(HasSubstr("giving its devices back first")));
    EXPECT_TRUE(is_as_before());
}

TEST_F(GpuRunTest, dry_run_takes_nothing) {
    spec.gpus.clear();
    spec.all_gpus = true;
    const auto shown = dry_run(spec, devices_);
    ASSERT_TRUE(shown) << shown.error().describe();
    EXPECT_EQ(std::count_if(shown->argv.begin(), shown->argv.end(),
                            [](const std::string& word) {
                                return word.find("vfio-pci") != std::string::npos;
                            }),
              12);
    EXPECT_THAT(shown->warnings, Contains(HasSubstr("do not fit the 40 physical address bits")))
        << "of software emulation";
    EXPECT_EQ(kernel_.writes(), 0);
    EXPECT_TRUE(is_as_before());
    EXPECT_FALSE(path_exists(folder_ / "state"));
}

TEST_F(GpuRunTest, dry_run_shows_the_command_line_of_devices_that_are_not_there) {
    spec.gpus = spec::parse_pci_addresses("f0:00.0").value();
    const auto shown = dry_run(spec, devices_);
    ASSERT_TRUE(shown) << shown.error().describe();
    EXPECT_THAT(shown->argv, Contains(HasSubstr("0000:f0:00.0")));
    EXPECT_THAT(shown->warnings, Contains(HasSubstr("There is no PCI device 0000:f0:00.0")));
}

class KilledRunTest : public RunTest, public testing::WithParamInterface<Kind> {};

TEST_P(KilledRunTest, takes_qemu_with_it_and_is_no_hindrance) {
    guest_is(TinyGuest::waits);
    std::array<int, 2> fds{};
    ASSERT_EQ(::pipe2(fds.data(), O_CLOEXEC), 0);
    UniqueFd reader(fds[0]);
    UniqueFd writer(fds[1]);
    const pid_t runner = ::fork();
    ASSERT_GE(runner, 0);
    if (runner == 0) {
        on_event_ = [&](const RunEvent& event) {
            if (event.kind == Kind::started && GetParam() == Kind::stop_step)
                ::kill(::getpid(), SIGTERM);
            if (event.kind != GetParam())
                return;
            static_cast<void>(write_all(writer.get(), "x"));
            for (;;)
                ::pause();
        };
        static_cast<void>(run());
        ::_exit(0);
    }
    writer.reset();
    char byte = 0;
    ASSERT_EQ(::read(reader.get(), &byte, 1), 1) << "the run never came so far";
    const auto ids = instances();
    ASSERT_EQ(ids.size(), 1U);
    ::kill(runner, SIGKILL);
    ASSERT_EQ(::waitpid(runner, nullptr, 0), runner);

    const Registry registry(folder_ / "state");
    const auto dead = registry.find(ids[0]);
    ASSERT_TRUE(dead) << dead.error().describe();
    EXPECT_EQ(dead->state, State::failed);
    ASSERT_TRUE(dead->end);
    EXPECT_EQ(dead->end->reason, EndReason::runner_died);
    EXPECT_TRUE(becomes_true([&] { return qemu_processes() == 0; }));
    guest_is(TinyGuest::powers_off);
    on_event_ = nullptr;
    const auto next = run();
    ASSERT_TRUE(next) << next.error().describe();
    EXPECT_EQ(next->end.reason, EndReason::guest_shutdown);
    EXPECT_THAT(files_of(ids[0]), Not(Contains("disk.qcow2")));
    EXPECT_TRUE(registry.remove(*dead));
}

INSTANTIATE_TEST_SUITE_P(AtStage, KilledRunTest,
                         testing::Values(Kind::created, Kind::started, Kind::stop_step),
                         [](const auto& stage) { return std::string(to_string(stage.param)); });

TEST_F(RunTest, dry_run_shows_the_command_and_leaves_nothing) {
    spec.ports = {{spec::Protocol::tcp, "127.0.0.1", 0, 80}};
    const auto shown = dry_run(spec);
    ASSERT_TRUE(shown) << shown.error().describe();
    EXPECT_THAT(shown->argv.front(), HasSubstr("qemu-system-x86_64"));
    EXPECT_EQ(nlohmann::json::parse(shown->plan_json)["argv"], nlohmann::json(shown->argv));
    EXPECT_FALSE(path_exists(folder_ / "state"));
    EXPECT_THAT(list_directory(folder_ / "cwd").value(), IsEmpty());
}

TEST_F(RunTest, dry_run_shows_a_tdx_command_also_where_run_would_refuse_it) {
    if (path_exists("/sys/module/kvm_intel/parameters/tdx"))
        GTEST_SKIP() << "this host may have TDX";
    image_.metadata["bios"] = R"("ovmf.fd")";
    image_.summed.insert(image_.summed.begin(), "ovmf.fd");
    image_.seal();
    spec.tee = spec::Tee::tdx;
    spec.accelerator = spec::AcceleratorChoice::automatic;
    const auto shown = dry_run(spec);
    ASSERT_TRUE(shown) << shown.error().describe();
    EXPECT_THAT(shown->argv, Contains(HasSubstr("tdx-guest")));
    EXPECT_THAT(shown->warnings, Contains(HasSubstr("run would refuse")));
}

} // namespace
} // namespace host_runner::instance

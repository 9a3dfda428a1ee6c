// SPDX-License-Identifier: Apache-2.0
#pragma once

/// A machine with PCI devices as a folder of small files, and a kernel that answers writes to it.
///
///     PciMachine machine = PciMachine::with_eight_gpus();
///     FakeKernel kernel(machine);
///     kernel.refuse("0000:18:00.0", "vfio-pci");

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "fakes/temporary_directory.hpp"
#include "host_runner/base/process.hpp"
#include "host_runner/host/device_binder.hpp"
#include "host_runner/host/host_root.hpp"

namespace host_runner::tests {

struct BarSpec {
    unsigned index = 0;
    std::uint64_t size_bytes = 0;
    std::uint64_t flags = 0x14220c; ///< Memory, 64 bits wide, prefetchable.
};

struct PciFunction {
    std::string address; ///< "0000:18:00.0"
    std::string class_code = "0x030200";
    std::string vendor = "0x10de";
    std::string device = "0x2901";
    std::string driver = {}; ///< Empty: none. The one that a probe without override binds.
    int group = -1;          ///< -1: no IOMMU.
    int node = 0;
    std::vector<BarSpec> bars = {};
    bool can_reset = true;
};

class PciMachine {
public:
    PciMachine() {
        // The state folder of the same test knows no other boot than the real one.
        write("/proc/sys/kernel/random/boot_id", current_boot_id().value() + "\n");
        write("/proc/cpuinfo", "processor\t: 0\naddress sizes\t: 52 bits physical, 57 bits "
                               "virtual\n\n");
        write("/dev/iommu", "");
        add_driver("vfio-pci");
    }

    /// Eight GPUs and four NVSwitches on two nodes: 18:00.0 has an audio function and a bridge in
    /// its group; 2a:00.0 shares its group with a network card; 3a:00.0 is in use by process 4242;
    /// 5d:00.0 cannot be reset; 9a:00.0 has a BAR of 256 GiB, the others of 128 GiB.
    static PciMachine with_eight_gpus() {
        constexpr std::uint64_t mib = 1ULL << 20U;
        constexpr std::uint64_t gib = 1ULL << 30U;
        PciMachine machine;
        const auto gpu = [&](const std::string& address, int group, int node) {
            PciFunction function;
            function.address = address;
            function.driver = "nvidia";
            function.group = group;
            function.node = node;
            const bool is_large = address == "0000:9a:00.0";
            function.device = is_large ? "0x2335" : "0x2901";
            function.bars = {{0, 16 * mib}, {2, (is_large ? 256 : 128) * gib}, {4, 32 * mib}};
            function.can_reset = address != "0000:5d:00.0";
            machine.add(function);
        };
        gpu("0000:18:00.0", 30, 0);
        gpu("0000:2a:00.0", 31, 0);
        gpu("0000:3a:00.0", 32, 0);
        gpu("0000:5d:00.0", 33, 0);
        gpu("0000:9a:00.0", 34, 1);
        gpu("0000:ab:00.0", 35, 1);
        gpu("0000:ba:00.0", 36, 1);
        gpu("0000:db:00.0", 37, 1);
        for (int i = 0; i < 4; ++i)
            machine.add({.address = fmt::format("0000:{:02x}:00.0", 5 + i),
                         .class_code = "0x068000",
                         .device = "0x22a3",
                         .driver = "nvidia-nvswitch",
                         .group = 40 + i,
                         .node = i / 2,
                         .bars = {{0, 32 * mib}}});
        machine.add({.address = "0000:18:00.1",
                     .class_code = "0x040300",
                     .device = "0x22f0",
                     .driver = "snd_hda_intel",
                     .group = 30});
        machine.add({.address = "0000:17:01.0",
                     .class_code = "0x060400",
                     .vendor = "0x8086",
                     .device = "0x352a",
                     .driver = "pcieport",
                     .group = 30});
        machine.add({.address = "0000:2b:00.0",
                     .class_code = "0x020000",
                     .vendor = "0x8086",
                     .device = "0x1533",
                     .driver = "igb",
                     .group = 31});
        machine.write("/proc/driver/nvidia/gpus/0000:3a:00.0/information",
                      "Model: \t\t NVIDIA B200\nDevice Minor: \t 2\n");
        machine.opens("4242", "train", "/dev/nvidia2");
        return machine;
    }

    /// The same, with nothing that stands in the way of taking all of them.
    static PciMachine with_eight_free_gpus() {
        auto machine = with_eight_gpus();
        machine.ends("4242");
        machine.remove("0000:2b:00.0");
        return machine;
    }

    void add(const PciFunction& function) {
        const auto folder = device(function.address);
        write(folder + "/class", function.class_code + "\n");
        write(folder + "/vendor", function.vendor + "\n");
        write(folder + "/device", function.device + "\n");
        write(folder + "/driver_override", "(null)\n");
        write(folder + "/numa_node", fmt::format("{}\n", function.node));
        write(folder + "/resource", resources(function.bars));
        if (function.can_reset)
            write(folder + "/reset", "");
        if (function.group >= 0) {
            const auto group = fmt::format("/sys/kernel/iommu_groups/{}", function.group);
            link(folder + "/iommu_group",
                 "../../../../kernel/iommu_groups/" + std::to_string(function.group));
            write(group + "/devices/" + function.address, "");
        }
        if (function.driver.empty())
            return;
        defaults_[function.address] = function.driver;
        add_driver(function.driver);
        link(folder + "/driver", "../../drivers/" + function.driver);
    }
    void add_driver(const std::string& name) {
        write("/sys/bus/pci/drivers/" + name + "/bind", "");
    }
    void remove_driver(const std::string& name) {
        std::filesystem::remove_all(root().path("/sys/bus/pci/drivers/" + name));
    }
    /// Takes the device out of the machine.
    void remove(const std::string& address) {
        std::filesystem::remove_all(root().path(device(address)));
        for (const auto& group :
             std::filesystem::directory_iterator(root().path("/sys/kernel/iommu_groups")))
            std::filesystem::remove(group.path() / "devices" / address);
    }

    /// A process that has the node open.
    void opens(const std::string& pid, const std::string& program, const std::string& node) {
        write("/proc/" + pid + "/comm", program + "\n");
        link("/proc/" + pid + "/fd/7", node);
    }
    void ends(const std::string& pid) {
        std::filesystem::remove_all(root().path("/proc/" + pid));
    }

    void write(const std::string& absolute, const std::string& bytes) const {
        const std::filesystem::path path = root().path(absolute);
        std::filesystem::create_directories(path.parent_path());
        std::ofstream(path, std::ios::binary) << bytes;
    }
    void link(const std::string& absolute, const std::string& target) const {
        const std::filesystem::path path = root().path(absolute);
        std::filesystem::create_directories(path.parent_path());
        std::filesystem::remove(path);
        std::filesystem::create_symlink(target, path);
    }
    [[nodiscard]] std::string read(const std::string& absolute) const {
        std::stringstream text;
        text << std::ifstream(root().path(absolute), std::ios::binary).rdbuf();
        return text.str();
    }

    [[nodiscard]] static std::string device(const std::string& address) {
        return "/sys/bus/pci/devices/" + address;
    }
    [[nodiscard]] std::string driver_of(const std::string& address) const {
        const std::filesystem::path path = root().path(device(address) + "/driver");
        return std::filesystem::is_symlink(path)
                   ? std::filesystem::read_symlink(path).filename().string()
                   : std::string();
    }
    [[nodiscard]] std::string override_of(const std::string& address) const {
        auto text = read(device(address) + "/driver_override");
        while (text.ends_with('\n'))
            text.pop_back();
        return text == "(null)" ? std::string() : text;
    }
    /// "ADDRESS DRIVER OVERRIDE" of every device: what taking and giving back may not change.
    [[nodiscard]] std::vector<std::string> bindings() const {
        std::vector<std::string> all;
        for (const auto& entry :
             std::filesystem::directory_iterator(root().path("/sys/bus/pci/devices"))) {
            const auto address = entry.path().filename().string();
            all.push_back(
                fmt::format("{} '{}' '{}'", address, driver_of(address), override_of(address)));
        }
        std::sort(all.begin(), all.end());
        return all;
    }
    [[nodiscard]] host::HostRoot root() const {
        return {folder_->path()};
    }
    [[nodiscard]] const std::map<std::string, std::string>& defaults() const {
        return defaults_;
    }

private:
    static std::string resources(const std::vector<BarSpec>& bars) {
        std::string text;
        for (unsigned index = 0; index < 13; ++index) {
            BarSpec bar;
            for (const auto& candidate : bars)
                if (candidate.index == index)
                    bar = candidate;
            const std::uint64_t start = bar.size_bytes == 0 ? 0 : 0x200000000000;
            text += fmt::format("{:#018x} {:#018x} {:#018x}\n", start,
                                bar.size_bytes == 0 ? 0 : start + bar.size_bytes - 1,
                                bar.size_bytes == 0 ? 0 : bar.flags);
        }
        return text;
    }

    std::shared_ptr<TemporaryDirectory> folder_ = std::make_shared<TemporaryDirectory>();
    std::map<std::string, std::string> defaults_; ///< address -> driver
};

/// Does to the folder what Linux does on a write (drivers/base/bus.c, drivers/pci/pci-driver.c).
/// What is bound is in the folder only, so that it outlives a process that is killed.
class FakeKernel final : public host::SysfsWriter {
public:
    explicit FakeKernel(PciMachine machine) : machine_(std::move(machine)) {}

    /// This driver does not take the device: `bind` fails with ENODEV, a probe binds nothing.
    void refuse(const std::string& address, const std::string& driver) {
        refused_.emplace(address, driver);
    }
    void accept_again() {
        refused_.clear();
    }
    /// Drivers bind only after so many pauses.
    void bind_late(int pauses) {
        late_ = pauses;
    }
    /// The n-th write (from 0) and all that follow fail and change nothing.
    void die_before_write(int n) {
        last_write_ = n;
    }
    void live_again() {
        last_write_.reset();
    }
    /// Called before and after each write.
    std::function<void(int n, bool is_done)> on_write;
    /// Called at each pause.
    std::function<void()> on_pause;

    [[nodiscard]] int writes() const {
        return count_;
    }
    [[nodiscard]] const std::vector<std::string>& log() const {
        return log_;
    }

    [[nodiscard]] Result<void> write(const std::string& path, std::string_view text) override {
        const int n = count_++;
        if (last_write_ && n >= *last_write_)
            return fail(ErrorCode::io_error, "The process is dead");
        if (on_write)
            on_write(n, false);
        auto result = perform(path.substr(machine_.root().root.size()), std::string(text));
        if (on_write)
            on_write(n, true);
        return result;
    }
    void pause(std::chrono::milliseconds) override {
        if (on_pause)
            on_pause();
        for (auto& pending : std::exchange(pending_, {}))
            if (--pending.pauses > 0)
                pending_.push_back(pending);
            else
                attach(pending.address, pending.driver);
    }

private:
    struct Pending {
        std::string address, driver;
        int pauses = 0;
    };

    Result<void> perform(const std::string& path, const std::string& text) {
        log_.push_back(path + " <- " + (text == "\n" ? "" : text));
        if (!std::filesystem::exists(machine_.root().path(parent_of(path))))
            return fail_errno("Cannot open " + path, ENOENT);
        const auto name = path.substr(path.rfind('/') + 1);
        if (name == "driver_override") {
            machine_.write(path, text == "\n" ? "(null)\n" : text + "\n");
            return {};
        }
        if (name == "reset")
            return {};
        if (name == "drivers_probe") {
            probe(text);
            return {};
        }
        if (name == "unbind") {
            std::filesystem::remove(machine_.root().path(PciMachine::device(text) + "/driver"));
            std::filesystem::remove_all(
                machine_.root().path(PciMachine::device(text) + "/vfio-dev"));
            return {};
        }
        if (name == "bind")
            return bind(text, parent_of(path).substr(parent_of(path).rfind('/') + 1));
        return fail_errno("Cannot open " + path, ENOENT);
    }

    static std::string parent_of(const std::string& path) {
        return path.substr(0, path.rfind('/'));
    }

    void probe(const std::string& address) {
        const auto wanted = machine_.override_of(address);
        const auto& defaults = machine_.defaults();
        const auto known = defaults.find(address);
        const auto driver = !wanted.empty()           ? wanted
                            : known == defaults.end() ? std::string()
                                                      : known->second;
        if (machine_.driver_of(address).empty() && can_bind(address, driver))
            start(address, driver);
    }

    Result<void> bind(const std::string& address, const std::string& driver) {
        const auto wanted = machine_.override_of(address);
        if ((!wanted.empty() && wanted != driver) || !can_bind(address, driver))
            return fail_errno("Cannot bind " + address + " to " + driver, ENODEV);
        if (!machine_.driver_of(address).empty())
            return fail_errno("Cannot bind " + address + " to " + driver, EBUSY);
        start(address, driver);
        return {};
    }

    [[nodiscard]] bool can_bind(const std::string& address, const std::string& driver) const {
        return !driver.empty() && !refused_.contains({address, driver}) &&
               std::filesystem::exists(machine_.root().path("/sys/bus/pci/drivers/" + driver));
    }

    void start(const std::string& address, const std::string& driver) {
        if (late_ > 0)
            pending_.push_back({address, driver, late_});
        else
            attach(address, driver);
    }

    void attach(const std::string& address, const std::string& driver) {
        if (!machine_.driver_of(address).empty())
            return;
        const auto folder = PciMachine::device(address);
        machine_.link(folder + "/driver", "../../drivers/" + driver);
        if (driver != "vfio-pci")
            return;
        // The number does not matter, only that it is one's own.
        const auto name = fmt::format("vfio{}", std::stoi(address.substr(5, 2), nullptr, 16));
        machine_.write(folder + "/vfio-dev/" + name + "/dev", "511:0\n");
        machine_.write("/dev/vfio/devices/" + name, "");
    }

    PciMachine machine_;
    std::set<std::pair<std::string, std::string>> refused_;
    std::vector<Pending> pending_;
    int late_ = 0;
    int count_ = 0;
    std::optional<int> last_write_;
    std::vector<std::string> log_;
};

} // namespace host_runner::tests

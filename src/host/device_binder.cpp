// SPDX-License-Identifier: Apache-2.0
#include "host_runner/host/device_binder.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <thread>
#include <utility>

#include <fcntl.h>
#include <unistd.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "host_runner/base/files.hpp"
#include "host_runner/base/log.hpp"
#include "host_runner/base/unique_fd.hpp"
#include "host_runner/host/gpu.hpp"
#include "host_runner/host/pci.hpp"

namespace host_runner::host {

namespace {

using nlohmann::ordered_json;
using spec::format_pci_address;
using spec::PciAddress;

constexpr int schema_version = 1;
constexpr std::size_t max_journal_bytes = std::size_t{256} * 1024;
constexpr std::size_t max_entries = 1024;
/// Linux drivers/pci/pci-driver.c: an override is shorter than a page; module names are far
/// shorter.
constexpr std::size_t max_driver_name = 255;

constexpr std::chrono::milliseconds bind_limit{10'000};
constexpr std::chrono::milliseconds release_limit{10'000};
constexpr std::chrono::milliseconds look_again_after{20};
/// Each look goes through the descriptors of all processes.
constexpr std::chrono::milliseconds look_for_holders_after{200};

struct StepWord {
    BinderStep step;
    std::string_view word;
};
constexpr std::array<StepWord, 9> step_words{{
    {BinderStep::unbinding, "unbinding"},
    {BinderStep::overriding, "overriding"},
    {BinderStep::probing, "probing"},
    {BinderStep::resetting, "resetting"},
    {BinderStep::taken, "taken"},
    {BinderStep::clearing_override, "clearing_override"},
    {BinderStep::releasing, "releasing"},
    {BinderStep::rebinding, "rebinding"},
    {BinderStep::restoring_override, "restoring_override"},
}};

tl::unexpected<Error> bad_journal(std::string_view what) {
    return fail(ErrorCode::corrupt_data, fmt::format("The journal of devices {}", what));
}

/// It becomes a part of a path in /sys.
bool is_driver_name(const std::string& name) {
    return name.size() <= max_driver_name && name != "." && name != ".." &&
           std::all_of(name.begin(), name.end(),
                       [](char c) { return c > ' ' && c < 0x7f && c != '/'; });
}

Result<JournalEntry> decode_entry(const nlohmann::json& object) {
    JournalEntry entry;
    const auto address = object.at("address").get<std::string>();
    const auto parsed = spec::parse_pci_addresses(address);
    if (!parsed || parsed->size() != 1)
        return bad_journal(fmt::format("has the address '{}'", address));
    entry.address = parsed->front();
    entry.driver = object.at("driver").get<std::string>();
    entry.driver_override = object.at("driver_override").get<std::string>();
    if (!is_driver_name(entry.driver) || !is_driver_name(entry.driver_override))
        return bad_journal(fmt::format("has no driver's name for {}", address));
    const auto word = object.at("step").get<std::string>();
    const auto row = std::find_if(step_words.begin(), step_words.end(),
                                  [&](const auto& known) { return known.word == word; });
    if (row == step_words.end())
        return bad_journal(fmt::format("has the unknown step '{}'", word));
    entry.step = row->step;
    return entry;
}

Result<DeviceJournal> decode(const nlohmann::json& object) {
    if (!object.is_object())
        return bad_journal("is not a JSON object");
    if (object.at("schema_version") != schema_version)
        return bad_journal(fmt::format(
            "has a schema_version other than {}, which this host_runner reads", schema_version));
    DeviceJournal journal;
    journal.boot_id = object.at("boot_id").get<std::string>();
    const auto& devices = object.at("devices");
    if (!devices.is_array() || devices.size() > max_entries)
        return bad_journal(fmt::format("has no list of at most {} devices", max_entries));
    for (const auto& device : devices) {
        HR_TRY(auto entry, decode_entry(device));
        journal.entries.push_back(std::move(entry));
    }
    return journal;
}

Result<std::string> read_boot_id(const HostRoot& root) {
    HR_TRY(auto id, read_file(root.path("/proc/sys/kernel/random/boot_id"), 256));
    while (id.ends_with('\n'))
        id.pop_back();
    return id;
}

std::string or_none(const std::string& driver) {
    return driver.empty() ? "no driver" : driver;
}

Error with_context(Error error, const PciAddress& address, std::string_view doing) {
    error.message =
        fmt::format("Cannot {} {}: {}", doing, format_pci_address(address), error.message);
    return error;
}

} // namespace

Result<void> KernelSysfs::write(const std::string& path, std::string_view text) {
    const UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
    if (!fd)
        return fail_errno(fmt::format("Cannot open {}", path), errno);
    for (;;) {
        const auto count = ::write(fd.get(), text.data(), text.size());
        if (count == static_cast<ssize_t>(text.size()))
            return {};
        if (count < 0 && errno == EINTR)
            continue;
        // A rest would be a write, and a command, of its own.
        return fail_errno(fmt::format("Cannot write '{}' to {}", text, path),
                          count < 0 ? errno : EIO);
    }
}

void KernelSysfs::pause(std::chrono::milliseconds duration) {
    std::this_thread::sleep_for(duration);
}

std::string_view to_string(BinderStep step) noexcept {
    for (const auto& row : step_words)
        if (row.step == step)
            return row.word;
    return "unknown";
}

std::string encode_device_journal(const DeviceJournal& journal) {
    auto devices = ordered_json::array();
    for (const auto& entry : journal.entries)
        devices.push_back({{"address", format_pci_address(entry.address)},
                           {"driver", entry.driver},
                           {"driver_override", entry.driver_override},
                           {"step", to_string(entry.step)}});
    const ordered_json whole{{"schema_version", schema_version},
                             {"boot_id", journal.boot_id},
                             {"devices", std::move(devices)}};
    return whole.dump(-1, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

Result<DeviceJournal> decode_device_journal(std::string_view text) {
    if (text.size() > max_journal_bytes)
        return bad_journal(fmt::format("is larger than {} bytes", max_journal_bytes));
    try {
        return decode(nlohmann::json::parse(text));
    } catch (const nlohmann::json::exception& problem) {
        return bad_journal(fmt::format("cannot be read: {}", problem.what()));
    }
}

Result<std::optional<DeviceJournal>> read_device_journal(const std::string& path,
                                                         const HostRoot& root) {
    const auto text = read_file(path, max_journal_bytes);
    if (!text && text.error().code == ErrorCode::not_found)
        return std::optional<DeviceJournal>();
    HR_CHECK(text);
    HR_TRY(auto journal, decode_device_journal(*text).map_error([&](Error error) {
        error.message = fmt::format("{}: {}", path, error.message);
        error.hint = "bind the devices to their drivers by hand, then remove that file";
        return error;
    }));
    HR_TRY(const auto boot_id, read_boot_id(root));
    if (journal.boot_id != boot_id)
        return std::optional<DeviceJournal>();
    return std::optional(std::move(journal));
}

DeviceBinder::DeviceBinder(SysfsWriter& kernel, std::string journal_path, HostRoot root)
    : kernel_(kernel), journal_path_(std::move(journal_path)), root_(std::move(root)) {}

// --- taking
// ---------------------------------------------------------------------------------------

Result<void> DeviceBinder::take(const std::vector<PciAddress>& addresses) {
    HR_TRY(const auto left, read_device_journal(journal_path_, root_));
    if (left)
        return fail(
            ErrorCode::wrong_state,
            fmt::format("{} has devices that an earlier run has not given back", journal_path_),
            "host_runner gpu reclaim gives them back");
    HR_TRY(journal_.boot_id, read_boot_id(root_));
    journal_.entries.clear();
    for (const auto& address : addresses) {
        auto taken = take_one(address);
        if (taken)
            continue;
        auto error = with_context(std::move(taken).error(), address, "take");
        const auto returned = give_back();
        const bool all_back =
            returned && std::none_of(returned->begin(), returned->end(),
                                     [](const auto& one) { return one.problem.has_value(); });
        if (!all_back)
            error.hint = error.hint.empty() ? "not all devices could be given back: host_runner "
                                              "gpu reclaim tries again"
                                            : error.hint + "; not all devices could be given back: "
                                                           "host_runner gpu reclaim tries again";
        return tl::unexpected<Error>(std::move(error));
    }
    return {};
}

Result<void> DeviceBinder::take_one(const PciAddress& address) {
    HR_TRY(const auto device, read_pci_device(address, root_));
    if (device.driver == vfio_driver)
        return {}; // somebody prepared it, and wants it to stay
    const auto folder = pci_device_path(address);
    const auto name = format_pci_address(address);
    auto& entry = journal_.entries.emplace_back(
        JournalEntry{address, device.driver, device.driver_override, BinderStep::unbinding});
    const auto before = [&](BinderStep step) {
        entry.step = step;
        return save();
    };
    if (!device.driver.empty()) {
        HR_CHECK(before(BinderStep::unbinding));
        HR_CHECK(write(folder + "/driver/unbind", name));
        HR_CHECK(wait_for_driver(address, {}));
    }
    HR_CHECK(before(BinderStep::overriding));
    HR_CHECK(write(folder + "/driver_override", vfio_driver));
    HR_CHECK(before(BinderStep::probing));
    HR_CHECK(write("/sys/bus/pci/drivers_probe", name));
    HR_CHECK(wait_for_driver(address, vfio_driver));
    if (device.can_reset) {
        HR_CHECK(before(BinderStep::resetting));
        HR_CHECK(write(folder + "/reset", "1"));
    }
    return before(BinderStep::taken);
}

Result<void> DeviceBinder::wait_for_driver(const PciAddress& address, std::string_view driver) {
    std::chrono::milliseconds waited{0};
    for (;;) {
        HR_TRY(const auto bound, read_pci_driver(address, root_));
        if (bound == driver)
            return {};
        const bool is_foreign = !driver.empty() && !bound.empty();
        if (is_foreign || waited >= bind_limit)
            return fail(is_foreign ? ErrorCode::wrong_state : ErrorCode::timeout,
                        fmt::format("{} is bound to {} after {} ms, not to {}",
                                    format_pci_address(address), or_none(bound), waited.count(),
                                    or_none(std::string(driver))),
                        "the kernel's log may say why: dmesg | tail");
        kernel_.pause(look_again_after);
        waited += look_again_after;
    }
}

// --- giving back
// ----------------------------------------------------------------------------------

Result<std::vector<ReturnedDevice>> DeviceBinder::give_back() {
    std::vector<ReturnedDevice> all;
    if (!path_exists(journal_path_))
        return all;
    HR_TRY(auto journal, read_device_journal(journal_path_, root_));
    if (!journal) {
        log::info("{} is of an earlier boot: there is nothing to give back", journal_path_);
        HR_CHECK(remove_file(journal_path_));
        return all;
    }
    journal_ = std::move(*journal);
    for (auto i = journal_.entries.size(); i-- > 0;) {
        auto returned = give_back_one(journal_.entries[i]);
        if (!returned.problem) {
            const auto entry = journal_.entries[i];
            journal_.entries.erase(journal_.entries.begin() + static_cast<std::ptrdiff_t>(i));
            const auto saved = journal_.entries.empty() ? remove_file(journal_path_) : save();
            if (!saved) {
                returned.problem = saved.error();
                journal_.entries.insert(journal_.entries.begin() + static_cast<std::ptrdiff_t>(i),
                                        entry);
            }
        }
        all.push_back(std::move(returned));
    }
    return all;
}

ReturnedDevice DeviceBinder::give_back_one(JournalEntry& entry) {
    ReturnedDevice returned;
    returned.address = entry.address;
    if (auto restored = restore(entry, returned); !restored)
        returned.problem = with_context(std::move(restored).error(), entry.address, "give back");
    returned.driver = read_pci_driver(entry.address, root_).value_or("");
    return returned;
}

/// Each round looks at the device and does the one next thing, until nothing is left to do.
Result<void> DeviceBinder::restore(JournalEntry& entry, ReturnedDevice& returned) {
    // Clear, release, rebind, restore; and once more where vfio-pci bound late in between.
    constexpr int max_rounds = 10;
    const auto folder = pci_device_path(entry.address);
    for (int round = 0; round < max_rounds; ++round) {
        const auto device = read_pci_device(entry.address, root_);
        if (!device && device.error().code == ErrorCode::not_found) {
            returned.note = "it is not in this machine any more";
            return {};
        }
        HR_CHECK(device);
        const bool is_on_vfio = device->driver == vfio_driver;
        const bool is_back = device->driver == entry.driver;
        if (!is_back && !is_on_vfio && !device->driver.empty()) {
            returned.note = fmt::format("somebody else has bound it to {}", device->driver);
            return {};
        }
        if (!is_back && device->driver_override == vfio_driver) {
            // It would keep the old driver from binding.
            note_step(entry, BinderStep::clearing_override);
            HR_CHECK(write(folder + "/driver_override", "\n"));
        } else if (!is_back && is_on_vfio) {
            HR_CHECK(wait_until_free(entry.address));
            note_step(entry, BinderStep::releasing);
            HR_CHECK(write(folder + "/driver/unbind", format_pci_address(entry.address)));
            HR_CHECK(wait_for_driver(entry.address, {}));
        } else if (!is_back) {
            note_step(entry, BinderStep::rebinding);
            HR_CHECK(rebind(entry));
        } else if (device->driver_override != entry.driver_override &&
                   (device->driver_override.empty() || device->driver_override == vfio_driver)) {
            // Any other value is somebody else's wish, made meanwhile.
            note_step(entry, BinderStep::restoring_override);
            HR_CHECK(write(folder + "/driver_override",
                           entry.driver_override.empty() ? "\n" : entry.driver_override));
        } else {
            return {};
        }
    }
    return fail(ErrorCode::wrong_state,
                fmt::format("after {} attempts it is not as it was", max_rounds),
                "another program may be binding it too; host_runner gpu reclaim tries again");
}

Result<void> DeviceBinder::rebind(const JournalEntry& entry) {
    const auto bind = fmt::format("/sys/bus/pci/drivers/{}/bind", entry.driver);
    const auto name = format_pci_address(entry.address);
    const bool is_loaded = path_exists(root_.path(bind));
    // Its module may have been unloaded: then the kernel may load it by itself.
    auto written = write(is_loaded ? bind : "/sys/bus/pci/drivers_probe", name);
    if (written)
        written = wait_for_driver(entry.address, entry.driver);
    // vfio-pci may have bound late, from before the override was cleared: the next round sees it.
    if (!written && read_pci_driver(entry.address, root_).value_or("") == vfio_driver)
        return {};
    if (!written && !is_loaded)
        written.error().hint =
            fmt::format("load the driver {} (modprobe), then host_runner gpu reclaim tries again",
                        entry.driver);
    return written;
}

Result<void> DeviceBinder::wait_until_free(const PciAddress& address) {
    // Unbinding would block in the kernel until it is closed.
    for (std::chrono::milliseconds waited{0};; waited += look_for_holders_after) {
        HR_TRY(const auto device, read_pci_device(address, root_));
        const auto holder = find_device_holder(device, root_);
        if (!holder)
            return {};
        if (waited >= release_limit)
            return fail(ErrorCode::unavailable,
                        fmt::format("{} (pid {}) still has {} open", holder->process.program,
                                    holder->process.pid, holder->node),
                        "end that process, then host_runner gpu reclaim tries again");
        kernel_.pause(look_for_holders_after);
    }
}

// --- small things
// ---------------------------------------------------------------------------------

Result<void> DeviceBinder::write(const std::string& absolute, std::string_view text) {
    return kernel_.write(root_.path(absolute), text);
}

Result<void> DeviceBinder::save() const {
    return write_file_atomic(journal_path_, encode_device_journal(journal_));
}

/// On the way back the journal already holds all that is needed: a full disk must not keep devices.
void DeviceBinder::note_step(JournalEntry& entry, BinderStep step) const {
    entry.step = step;
    if (const auto saved = save(); !saved)
        log::warn("{}", saved.error().describe());
}

} // namespace host_runner::host

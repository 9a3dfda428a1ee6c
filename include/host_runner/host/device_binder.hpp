// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Takes PCI devices from the host's drivers for vfio-pci, and gives them back to where they were.
///
///     DeviceBinder binder(kernel, paths.device_journal());
///     HR_CHECK(binder.take(selection.addresses()));   // all or none
///     ...
///     HR_TRY(const auto returned, binder.give_back());
///
/// Before each write to the kernel the journal says what was and what comes, so that any later
/// process can give back what this one took, wherever it was killed. give_back() looks at what the
/// devices are now, not at how far the journal got: repeating it is safe and ends in the first
/// state. Whoever uses a journal holds the lock of its instance.

#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "host_runner/base/error.hpp"
#include "host_runner/host/host_root.hpp"
#include "host_runner/spec/pci_address.hpp"

namespace host_runner::host {

/// The edge to the kernel.
class SysfsWriter {
public:
    virtual ~SysfsWriter() = default;
    /// One write(2) of all of `text` to a file of sysfs that is there.
    /// @errors by errno, with path and text
    [[nodiscard]] virtual Result<void> write(const std::string& path, std::string_view text) = 0;
    /// Between two looks at something that the kernel does late: sysfs tells nobody when a driver
    /// has bound.
    virtual void pause(std::chrono::milliseconds duration) = 0;
};

class KernelSysfs final : public SysfsWriter {
public:
    [[nodiscard]] Result<void> write(const std::string& path, std::string_view text) override;
    void pause(std::chrono::milliseconds duration) override;
};

/// What comes next for a device; the journal holds it for people who look into it.
enum class BinderStep {
    unbinding,
    overriding,
    probing,
    resetting,
    taken,
    clearing_override,
    releasing,
    rebinding,
    restoring_override,
};
[[nodiscard]] std::string_view to_string(BinderStep step) noexcept;

/// How a device was before it was taken.
struct JournalEntry {
    spec::PciAddress address;
    std::string driver;          ///< Empty: none.
    std::string driver_override; ///< Empty: none.
    BinderStep step = BinderStep::unbinding;
    bool operator==(const JournalEntry&) const = default;
};

struct DeviceJournal {
    /// A restart of the machine gives everything back by itself, and makes the journal void.
    std::string boot_id;
    std::vector<JournalEntry> entries;
    bool operator==(const DeviceJournal&) const = default;
};

/// One line of JSON with `schema_version`.
[[nodiscard]] std::string encode_device_journal(const DeviceJournal& journal);
/// @errors corrupt_data
[[nodiscard]] Result<DeviceJournal> decode_device_journal(std::string_view text);

/// What this boot's journal holds; nullopt: there is none, or the machine was restarted since.
/// @errors corrupt_data, with the path; permission_denied, io_error
[[nodiscard]] Result<std::optional<DeviceJournal>> read_device_journal(const std::string& path,
                                                                       const HostRoot& root = {});

/// How giving back one device went.
struct ReturnedDevice {
    spec::PciAddress address;
    std::string driver;           ///< That it is bound to now; empty: none.
    std::string note;             ///< Something out of the ordinary; empty: as it was before.
    std::optional<Error> problem; ///< It could not be given back; the journal keeps it.
};

/// Not thread-safe.
class DeviceBinder {
public:
    /// @param kernel        outlives this
    /// @param journal_path  made by take(), removed when everything is given back
    DeviceBinder(SysfsWriter& kernel, std::string journal_path, HostRoot root = {});

    /// Binds the devices to vfio-pci, one after the other, and resets them where the kernel can.
    /// Those bound to it already are left as they are and are not in the journal. After a failure
    /// everything is given back again; where that fails too, the hint says so. Blocks as long as
    /// the old drivers need to let go.
    /// @errors wrong_state: the journal has devices of an earlier run; timeout: vfio-pci did not
    ///         bind; not_found: the device is gone; others by errno of the write that failed
    [[nodiscard]] Result<void> take(const std::vector<spec::PciAddress>& addresses);

    /// Gives everything in the journal back, the last taken first, and goes on after a failure.
    /// Waits a while for a process that still has a device open.
    /// @return one per device of the journal; empty: there was nothing to give back
    /// @errors corrupt_data, io_error: the journal cannot be read; nothing was done
    [[nodiscard]] Result<std::vector<ReturnedDevice>> give_back();

private:
    [[nodiscard]] Result<void> take_one(const spec::PciAddress& address);
    [[nodiscard]] ReturnedDevice give_back_one(JournalEntry& entry);
    [[nodiscard]] Result<void> restore(JournalEntry& entry, ReturnedDevice& returned);
    [[nodiscard]] Result<void> rebind(const JournalEntry& entry);
    [[nodiscard]] Result<void> wait_until_free(const spec::PciAddress& address);
    [[nodiscard]] Result<void> wait_for_driver(const spec::PciAddress& address,
                                               std::string_view driver);
    [[nodiscard]] Result<void> write(const std::string& absolute, std::string_view text);
    [[nodiscard]] Result<void> save() const;
    void note_step(JournalEntry& entry, BinderStep step) const;

    SysfsWriter& kernel_;
    std::string journal_path_;
    HostRoot root_;
    DeviceJournal journal_;
};

} // namespace host_runner::host

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// instance.json: what is fixed for one run of an instance, and how it ended. Whether it runs is
/// never stored; the registry derives it.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "host_runner/base/error.hpp"
#include "host_runner/base/exit_code.hpp"
#include "host_runner/base/process.hpp"
#include "host_runner/spec/pci_address.hpp"
#include "host_runner/spec/port_mapping.hpp"

namespace host_runner::instance {

/// Why an instance is no longer running.
enum class EndReason {
    guest_shutdown,  ///< The guest powered off by itself.
    stop_requested,  ///< `stop`, SIGINT or SIGTERM, and the guest or QEMU followed.
    killed_by_force, ///< ... and QEMU had to be killed.
    guest_reset,
    guest_panic,
    guest_boot_error,
    qemu_start_failed,
    qemu_died,
    start_failed, ///< Before QEMU: a port, a disk, a file.
    runner_died,  ///< Never stored: derived when the lock is free and no end is recorded.
};
[[nodiscard]] std::string_view to_string(EndReason reason) noexcept;

struct End {
    std::int64_t time_ms = 0; ///< Unix time; 0: unknown (runner_died).
    EndReason reason = EndReason::guest_shutdown;
    ExitCode exit_code = ExitCode::success;
    std::string detail; ///< QEMU's or the guest's own words; may be empty.
};

struct Record {
    std::string id;   ///< 12 lower-case hex digits.
    std::string name; ///< Empty: temporary.
    std::int64_t created_ms = 0;
    std::int64_t started_ms = 0; ///< Of the latest run.
    std::string image_directory, image_name, os_image_hash;
    std::string tee, accelerator; ///< As in the command line's words.
    std::uint32_t cpus = 0;
    std::uint64_t memory_bytes = 0, disk_bytes = 0;
    std::vector<spec::PortMapping> ports;
    std::vector<spec::PciAddress> gpus; ///< NVSwitches too.
    std::uint32_t vsock_cid = 0;        ///< 0: none.
    std::string compose_path;           ///< Empty: none.
    std::string compose_hash;           ///< Hex, of app-compose.json.
    std::string kernel_command_line;
    std::string qemu_path, qemu_version;
    std::string cgroup;    ///< Of QEMU: its folder, or the scope that systemd gave; empty: none.
    std::string qemu_user; ///< The account QEMU runs as; empty: the runner's own.
    std::vector<std::string> argv; ///< Of QEMU; empty with another backend.
    std::string backend = "qemu";  ///< Who started QEMU; "qemu": the runner itself.
    std::string backend_address;   ///< libvirt's URI; empty: none.
    std::string backend_machine;   ///< The name of libvirt's domain; empty: none.
    std::string description;       ///< The domain's XML; empty: none.
    std::string working_directory;
    std::string stdout_log, stderr_log;
    std::vector<std::uint32_t> numa_nodes; ///< Of the host, that the VM was placed on; empty: any.
    std::uint64_t hugepage_bytes = 0;      ///< Size of its pages; 0: ordinary ones.
    std::string hugepage_directory;        ///< Of its own in a hugetlbfs; empty: none.
    std::string network; ///< usernet::to_string(Backend), "bridge=NAME"; empty: not known.
    std::vector<std::uint16_t> host_services; ///< Ports of the host's loopback that it reaches.
    ProcessIdentity runner;
    std::uint32_t restarts = 0;
    std::optional<End> end;
};

/// A larger file is no record of ours: argv is the longest part.
inline constexpr std::size_t max_record_bytes = 256UL * 1024;

/// 12 lower-case hex digits.
[[nodiscard]] bool is_instance_id(std::string_view text) noexcept;

/// One line of JSON with `schema_version`.
[[nodiscard]] std::string encode_record(const Record& record);
/// @errors corrupt_data
[[nodiscard]] Result<Record> decode_record(std::string_view json);

} // namespace host_runner::instance

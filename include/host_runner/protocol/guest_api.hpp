// SPDX-License-Identifier: Apache-2.0
#pragma once

/// What the runner asks the guest: POST /api/<Method>?json, on channel port 2 (Exec and Logs with
/// follow on port 3). Void answers are empty or `null`.
///
/// Methods: Info -> GuestInfo; SysInfo -> SystemInfo; Services -> ServiceStatus list; Shutdown ->
/// void, then the guest notifies shutdown.progress and powers off; Logs -> streamed JSON lines;
/// Exec (dev flavour only, else 403) -> streamed JSON lines.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "host_runner/base/error.hpp"

namespace host_runner::protocol {

struct GuestInfo {
    std::string version;      ///< The agent's.
    std::string app_id;       ///< Hex, first 20 bytes of the compose hash.
    std::string instance_id;  ///< Hex; empty when there is none.
    std::string compose_hash; ///< Hex SHA-256 of app-compose.json's bytes, as the guest read them.
    std::string boot_id;      ///< The guest kernel's.
    std::string flavour;      ///< "release" or "dev"
    std::string data_disk;    ///< "plain", "encrypted" or "none"
};
[[nodiscard]] std::string encode_guest_info(const GuestInfo& info);
[[nodiscard]] Result<GuestInfo> decode_guest_info(std::string_view json);

struct DiskInfo {
    std::string name;
    std::string mount_point;
    std::uint64_t total_size = 0; ///< Bytes.
    std::uint64_t free_size = 0;  ///< Bytes.
};
/// Field names and units as in dstack's SysInfo; load averages are x 100.
struct SystemInfo {
    std::string os_name, os_version, kernel_version, cpu_model;
    std::uint32_t num_cpus = 0;
    std::uint64_t total_memory = 0, available_memory = 0, used_memory = 0, free_memory = 0;
    std::uint64_t total_swap = 0, used_swap = 0, free_swap = 0;
    std::uint64_t uptime = 0; ///< Seconds.
    std::uint32_t loadavg_one = 0, loadavg_five = 0, loadavg_fifteen = 0;
    std::vector<DiskInfo> disks;
};
[[nodiscard]] std::string encode_system_info(const SystemInfo& info);
[[nodiscard]] Result<SystemInfo> decode_system_info(std::string_view json);

struct ServiceStatus {
    std::string name;  ///< Of a service with several replicas NAME-1, ...
    std::string state; ///< waiting, starting, running, healthy, unhealthy, exited, failed
    std::int64_t pid = 0;
    std::optional<int> exit_code;
    std::uint32_t restarts = 0;
    std::string program_sha256;     ///< Hex, of the program file or module that was executed.
    std::string certificate_sha256; ///< Hex, of the certificate on its ports; empty: no TLS.
    std::string replica_of = {};    ///< The service's name; empty: it has one process.
    /// Of a module, since its first start; names of lower-case letters and '_', at most 64.
    std::map<std::string, std::uint64_t> counters = {};
};
[[nodiscard]] std::string encode_services(const std::vector<ServiceStatus>& services);
[[nodiscard]] Result<std::vector<ServiceStatus>> decode_services(std::string_view json);

struct LogsRequest {
    std::string service; ///< Or one of its replicas. Empty: all, and the agent's own.
    bool follow = false;
    std::optional<std::uint32_t> tail; ///< Last lines only.
};
[[nodiscard]] std::string encode_logs_request(const LogsRequest& request);
[[nodiscard]] Result<LogsRequest> decode_logs_request(std::string_view json);

struct ExecRequest {
    std::vector<std::string> argv;
    std::map<std::string, std::string> environment;
    std::string stdin_bytes;
};
[[nodiscard]] std::string encode_exec_request(const ExecRequest& request);
[[nodiscard]] Result<ExecRequest> decode_exec_request(std::string_view json);

/// One line of a streamed answer.
struct StreamItem {
    enum class Kind { out, err, exit, error, keep_alive };
    Kind kind = Kind::out;
    std::string service; ///< For Logs.
    std::string bytes;   ///< out, err: raw bytes (base64 on the wire); error: text.
    int exit_code = 0;   ///< exit: the code, or 128 + signal.
};
[[nodiscard]] std::string encode_stream_item(const StreamItem& item); ///< With its newline.
[[nodiscard]] Result<StreamItem> decode_stream_item(std::string_view line);

} // namespace host_runner::protocol

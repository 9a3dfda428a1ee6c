// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Results as text: one formatter per output form. Pure: no file, clock or terminal.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "host_runner/cli/process_usage.hpp"
#include "host_runner/config/settings.hpp"
#include "host_runner/host/gpu.hpp"
#include "host_runner/image/image.hpp"
#include "host_runner/instance/doctor.hpp"
#include "host_runner/instance/registry.hpp"
#include "host_runner/spec/compose.hpp"

namespace host_runner::cli {

/// Of a VM that runs.
struct StatsRow {
    std::string id;
    std::string name;
    std::int64_t uptime_ms = 0;
    pid_t qemu_pid = 0;
    pid_t runner_pid = 0;
    ProcessUsage qemu;
    ProcessUsage runner;
};

/// A GPU or NVSwitch of this machine.
struct GpuRow {
    host::Gpu gpu;
    /// That has it; empty: none of this user's.
    std::string instance_id, instance_name;
    bool is_left_behind = false; ///< The instance was killed and could not give it back.
};

/// What a compose file gives the guest of our own image.
struct ComposeReport {
    std::string path;
    spec::ResolvedCompose resolved;
    /// The SHA-256 of app-compose.json with a local or relayed key provider, and with another or
    /// none: that is part of it.
    std::string hash_with_local_keys;
    std::string hash_without_local_keys;
};

class Formatter {
public:
    virtual ~Formatter() = default;
    [[nodiscard]] virtual std::string
    instances(const std::vector<instance::Instance>& all) const = 0;
    /// @param directory the instance's folder
    [[nodiscard]] virtual std::string instance(const instance::Instance& one,
                                               const std::string& directory) const = 0;
    [[nodiscard]] virtual std::string stats(const std::vector<StatsRow>& rows) const = 0;
    [[nodiscard]] virtual std::string
    settings(const std::vector<config::Setting>& settings) const = 0;
    [[nodiscard]] virtual std::string image(const image::Image& image) const = 0;
    [[nodiscard]] virtual std::string checks(const image::Image& image,
                                             const std::vector<image::Check>& checks) const = 0;
    [[nodiscard]] virtual std::string gpus(const std::vector<GpuRow>& rows) const = 0;
    [[nodiscard]] virtual std::string compose(const ComposeReport& report) const = 0;
    [[nodiscard]] virtual std::string
    findings(const std::vector<instance::Finding>& findings) const = 0;
};

/// For people: columns under headings, or one "name  value" line per fact.
[[nodiscard]] std::unique_ptr<Formatter> make_text_formatter();
/// For programs: one JSON object with `schema_version` 1. Sizes are bytes, times milliseconds.
[[nodiscard]] std::unique_ptr<Formatter> make_json_formatter();
/// "json" gives the latter, "table" and "text" the former.
[[nodiscard]] std::unique_ptr<Formatter> make_formatter(std::string_view form);

} // namespace host_runner::cli

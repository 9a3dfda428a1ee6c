// SPDX-License-Identifier: Apache-2.0
#pragma once

/// app-compose.json as our own guest reads it: the compose file, resolved by the runner. Encoding
/// is deterministic (same input, same bytes), because the hash of the bytes is the app's identity.
/// The members that dstack names (manifest_version, name, runner, ...) keep dstack's meaning; ours
/// has runner "host-runner" and adds `services`, `files` and `volumes`.
///
///     const std::string bytes = encode_app_compose(app);   // hash these
///     HR_TRY(const auto same, decode_app_compose(bytes));   // the guest's side

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "host_runner/base/error.hpp"

namespace host_runner::protocol {

enum class RestartPolicy { no, on_failure, always, unless_stopped };
enum class DependencyCondition { started, healthy, completed_successfully };

struct AppDependency {
    std::string service;
    DependencyCondition condition = DependencyCondition::started;
};

struct AppHealthCheck {
    std::vector<std::string> command; ///< Run in the guest; exit 0 = healthy.
    std::chrono::milliseconds interval{30'000};
    std::chrono::milliseconds timeout{30'000};
    std::chrono::milliseconds start_period{0};
    std::uint32_t retries = 3;
};

/// What a WebAssembly module is run as.
enum class World {
    command,   ///< A WASI preview 1 program with `_start`.
    wasi_http, ///< A component of the world wasi:http/proxy 0.2, which answers HTTP on its port.
    function,  ///< A program as with `command`, run anew for each call (invocation.hpp).
};
[[nodiscard]] std::string_view to_string(World world) noexcept;
/// @errors invalid_argument: names the worlds there are
[[nodiscard]] Result<World> parse_world(std::string_view word);

/// What one service of the world `function` may do at a time.
struct AppCallLimits {
    std::uint32_t calls = 16; ///< Side by side. As many again wait; above that they are refused.
    std::uint64_t output_bytes = 8UL << 20; ///< Of stdout and of stderr each; 0: no limit.
};

/// TLS on a module's ports.
struct AppTls {
    /// PEM files, a `name` in AppCompose::files each; both empty: the guest makes a key and a
    /// certificate of its own.
    std::string certificate_file;
    std::string key_file;
};

struct AppModule {
    std::string file; ///< A `name` in AppCompose::files.
    World world = World::command;
    std::uint64_t memory_bytes = 64UL << 20; ///< Linear memory of one instance, at most.
    /// Of the whole run of a command; of one request with wasi_http, of one call with function.
    /// 0: none; with these two 30 s.
    std::chrono::milliseconds timeout{0};
    /// Whom a wasi_http module may ask: "HOST:PORT", nobody else.
    std::vector<std::string> outgoing;
    std::optional<AppTls> tls;
    AppCallLimits calls = {}; ///< With function.
};

struct AppService {
    std::string name;
    /// A program of the image (absolute path or looked up) and its arguments; with `module` the
    /// module's argv.
    std::vector<std::string> command;
    std::optional<AppModule> module; ///< A WebAssembly service.
    std::map<std::string, std::string> environment;
    std::string working_directory; ///< Empty: "/".
    std::string user;              ///< Empty: the image's unprivileged default. Name or uid[:gid].
    std::vector<AppDependency> depends_on;
    RestartPolicy restart = RestartPolicy::no;
    std::uint32_t max_restarts = 0; ///< For on_failure; 0 = no limit.
    std::optional<AppHealthCheck> health_check;
    std::chrono::milliseconds stop_grace_period{10'000};
    std::optional<std::uint64_t> memory_limit_bytes;
    std::optional<std::uint32_t> pids_limit;
    std::uint32_t replicas =
        1; ///< Processes of it, each with the limits above; see replica_names().
    /// "named-volume or ./file" -> path in the guest, in the compose file's order.
    struct Mount {
        std::string source; ///< A name in AppCompose::volumes, or a `name` in AppCompose::files.
        std::string target;
        bool read_only = false;
        bool is_file = false;
    };
    std::vector<Mount> mounts;
    /// Guest ports of the service (`ports:`), for information.
    std::vector<std::uint16_t> ports;
};

struct AppFile {
    std::string name;   ///< As the compose file wrote it.
    std::string sha256; ///< Hex; the file lies on the share as files/<sha256>.
    std::uint64_t size = 0;
};

struct AppCompose {
    std::string name;
    std::vector<AppService> services; ///< In the compose file's order.
    std::vector<std::string> volumes;
    std::vector<AppFile> files;
    bool local_key_provider = false;
    bool power_off_when_done = false; ///< x-power-off: when the last service ended.
    bool egress = false;
};

/// dstack's guests up to 0.5.11 read at most 256 KiB, and so does ours.
/// Source: dstack v0.5.11 dstack-util, host-shared copy limits.
inline constexpr std::size_t max_app_compose_json_bytes = 256UL * 1024;
/// The same limits, for its companion .sys-config.json.
inline constexpr std::size_t max_sys_config_bytes = 32UL * 1024;
inline constexpr std::size_t max_services = 128; ///< Each replica counts.
inline constexpr std::size_t max_files = 1024;

/// What the processes of a service are called: its name where there is one, else NAME-1 to NAME-N,
/// as Docker Compose does.
[[nodiscard]] std::vector<std::string> replica_names(const AppService& service);

/// The rules for a service's number of replicas, a part of check_app_service().
/// @errors invalid_argument
[[nodiscard]] Result<void> check_replicas(const AppService& service);

/// UTF-8 without NUL characters: what every text of the app must be.
[[nodiscard]] bool is_plain_text(std::string_view text);

/// The rules for one service alone and its mounts; depends_on is not looked at.
/// @errors invalid_argument: names the service and the value
[[nodiscard]] Result<void> check_app_service(const AppService& service, const AppCompose& app);

/// The rules that a decoded and a resolved app must keep: names, counts, paths and lengths in
/// range; depends_on names services, without a cycle; mounts name volumes and files; text is UTF-8.
/// @errors invalid_argument: names the service and the value
[[nodiscard]] Result<void> check_app_compose(const AppCompose& app);

/// Indexes of the services so that each comes after what it depends on, otherwise as they stand.
/// @errors invalid_argument: an unknown service, one that depends on itself, a cycle (named)
[[nodiscard]] Result<std::vector<std::size_t>> start_order(const std::vector<AppService>& services);

/// The exact bytes for app-compose.json. The app must pass check_app_compose().
[[nodiscard]] std::string encode_app_compose(const AppCompose& app);
/// @errors invalid_argument: not ours (another runner), unknown, missing or repeated members, wrong
///         types, over the caps, or against check_app_compose()
[[nodiscard]] Result<AppCompose> decode_app_compose(std::string_view json);

} // namespace host_runner::protocol

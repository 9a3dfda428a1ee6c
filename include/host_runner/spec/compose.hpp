// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The compose file: the Compose Specification's subset that means something here (yaml-cpp).
/// Unknown keys are errors with file, line and column, except x-*. Nothing is filled in from the
/// host's environment: "$$" is a dollar sign, "$NAME" an error.
///
///     HR_TRY(const auto compose, load_compose("compose.yaml"));
///     HR_TRY(const auto resolved, resolve_compose(compose, {}));   // for our own guest

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "host_runner/base/error.hpp"
#include "host_runner/protocol/app_compose.hpp"
#include "host_runner/spec/port_mapping.hpp"

namespace host_runner::spec {

/// A file of the host that travels to the guest.
struct LocalFile {
    std::string path; ///< On the host, absolute.
    protocol::AppFile entry;
};

struct Compose {
    std::string path; ///< As given, for messages.
    std::string text; ///< The raw bytes, for guests that read the file themselves (dstack's).
    std::string name; ///< `name:`, else the file's name without its ending.
    /// Some service names a container image (neither a .wasm file nor an OCI layout folder).
    bool has_container_images = false;
    std::string first_container_image; ///< For the message; empty when there is none.
};

/// Reads and caps the file and checks that it is YAML with a services map; enough for guests that
/// interpret it themselves.
/// @errors not_found; invalid_argument with "FILE:LINE:COLUMN: "; corrupt_data: above 256 KiB
[[nodiscard]] Result<Compose> load_compose(const std::string& path);

/// The same from memory; `path` gives messages, the default name and the folder of files their
/// start.
[[nodiscard]] Result<Compose> parse_compose(const std::string& path, std::string text);

struct ResolvedCompose {
    protocol::AppCompose app;       ///< What app-compose.json will say.
    std::vector<LocalFile> files;   ///< What must be delivered.
    std::vector<PortMapping> ports; ///< From `ports:`; forwarded unless -p overrides.
};

/// The services for our own guest: checks every key, resolves files and hashes them, adds the
/// public environment of --env-file (NAME=value pairs) to every service.
/// @errors invalid_argument with file, line and column; not_found: a file that a service names;
///         corrupt_data: it is no WebAssembly module; unsupported: a container image, or a module
///         for no world that there is
[[nodiscard]] Result<ResolvedCompose>
resolve_compose(const Compose& compose, const std::map<std::string, std::string>& environment);

/// NAME=value lines, '#' comments, optional quotes, as docker's --env-file reads them.
/// @errors not_found; corrupt_data: above 64 KiB; invalid_argument with "FILE:LINE: "
[[nodiscard]] Result<std::map<std::string, std::string>> load_env_file(const std::string& path);

/// The same from memory; `path` is for messages.
[[nodiscard]] Result<std::map<std::string, std::string>> parse_env_file(const std::string& path,
                                                                        std::string_view text);

} // namespace host_runner::spec

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// From the app to what its services are started with.

#include <string>
#include <string_view>
#include <vector>

#include "host_runner/agent/service_supervisor.hpp"
#include "host_runner/base/error.hpp"
#include "host_runner/protocol/app_compose.hpp"

namespace host_runner::agent {

inline constexpr std::string_view service_path =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where things are in the guest.
struct GuestPaths {
    std::string devices = "/dev";
    std::string ports = "/sys/class/virtio-ports";
    std::string input = "/dev/input";
    std::string serial = "/dev/ttyS0";
    std::string state = "/run/host-runner"; ///< share/ (checked copies), log/
    std::string data = "/data";             ///< The data disk; named volumes in volumes/.
    std::string cgroups = "/sys/fs/cgroup";
    std::string passwd = "/etc/passwd";
    std::string group = "/etc/group";
    std::string hosts = "/etc/hosts";
    std::string flavour = "/etc/host-runner/flavour"; ///< "dev" or "release"
};

/// Who the services are.
enum class Users {
    of_the_image, ///< Whom the compose file names; modules have users of their own.
    ourselves,    ///< All are who the agent is: it cannot become somebody else.
};

/// What each service needs: its user, its environment (the compose file's; programs get PATH and
/// HOME too), its mounts. Makes the folders of named volumes, owned by the first service that
/// mounts them.
/// @errors not_found: a user that the image does not have; wrong_state: a named volume without a
///         data disk; io_error
[[nodiscard]] Result<std::vector<PreparedService>> prepare_services(const protocol::AppCompose& app,
                                                                    const GuestPaths& paths,
                                                                    bool has_data_disk,
                                                                    Users users);

/// The services of the world `function`.
[[nodiscard]] std::vector<std::string> functions_of(const protocol::AppCompose& app);

/// The guest's /etc/hosts: its services find each other by name.
[[nodiscard]] std::string hosts_of(const protocol::AppCompose& app);

} // namespace host_runner::agent

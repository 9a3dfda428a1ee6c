// SPDX-License-Identifier: Apache-2.0
#pragma once

/// What one VM's user network lets through, and how the runner tells it to the program
/// `user_network`.
///
///     const auto arguments = to_arguments(settings);         // in the runner
///     HR_TRY(const auto settings, parse_arguments(words));    // in the program

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <sys/types.h>

#include "host_runner/base/error.hpp"
#include "host_runner/spec/port_mapping.hpp"

namespace host_runner::usernet {

struct Settings {
    /// The guest may open connections to the outside, and ask the host's DNS servers.
    bool egress = false;
    /// TCP ports of 127.0.0.1 that the guest reaches as 10.0.2.2:PORT.
    std::vector<std::uint16_t> host_services;
    /// Host ports forwarded to the guest; every host port settled.
    std::vector<spec::PortMapping> ports;
    /// Who the program becomes once it holds its ports; nullopt: it stays who it is.
    std::optional<uid_t> user;
    bool operator==(const Settings&) const = default;
};

/// The descriptor of `user_network` on which frames come and go, each behind its length as four
/// bytes in network order. Source: qemu@7.2 net/stream.c
inline constexpr int frames_fd = 3;

/// The words of the command line after the program's name.
[[nodiscard]] std::vector<std::string> to_arguments(const Settings& settings);
/// @errors invalid_argument: names the word
[[nodiscard]] Result<Settings> parse_arguments(const std::vector<std::string>& words);

/// What the program says on its standard output, once: that all is set up, or why not.
struct Status {
    enum class Kind { ready, port_taken, failed };
    Kind kind = Kind::failed;
    std::string text; ///< port_taken: the mapping; failed: why.
    bool operator==(const Status&) const = default;
};
/// One line.
[[nodiscard]] std::string format_status(const Status& status);
/// Anything that is no status, e.g. the dynamic linker's complaint, reads as `failed`.
[[nodiscard]] Status parse_status(std::string_view text);

} // namespace host_runner::usernet

// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Who makes a VM's network: what the user asked for, what the guest may reach and what is
/// installed -> one choice. Pure.
///
///     HR_TRY(const auto choice, choose_backend({spec.network, egress, services, by_tcp,
///     programs}));

#include <string>
#include <string_view>

#include "host_runner/base/error.hpp"
#include "host_runner/spec/vm_spec.hpp"

namespace host_runner::usernet {

enum class Backend {
    none,
    qemu,  ///< QEMU's own user network.
    slirp, ///< The program user_network.
    passt,
    bridge,
};
/// As in JSON output.
[[nodiscard]] std::string_view to_string(Backend backend) noexcept;

/// What this host has.
struct Programs {
    std::string user_network;  ///< Its path; empty: not installed.
    std::string passt;         ///< Its path; empty: not installed.
    std::string passt_problem; ///< Why that passt is not used; empty: it is fit.
};

struct ChoiceInput {
    const spec::Network& network;
    bool egress = false;
    bool host_services = false; ///< The guest is to reach ports of the host's loopback ...
    bool runner_by_tcp = false; ///< ... or that of its runner.
    const Programs& programs;
};

struct Choice {
    Backend backend = Backend::none;
    std::string notice;  ///< Worth saying; may be empty.
    std::string warning; ///< What the guest can reach that it should not; may be empty.
};

/// @errors unsupported: a program that is needed is missing or not fit; invalid_argument: what was
///         asked for does not go together
[[nodiscard]] Result<Choice> choose_backend(const ChoiceInput& input);

} // namespace host_runner::usernet

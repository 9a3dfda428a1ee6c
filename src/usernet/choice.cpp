// SPDX-License-Identifier: Apache-2.0
#include "host_runner/usernet/choice.hpp"

#include <fmt/format.h>

namespace host_runner::usernet {

namespace {

constexpr auto install_user_network =
    "install host_runner as a whole (lib/host-runner/user_network) and libslirp (libslirp0)";

/// With egress libslirp in QEMU connects wherever the guest asks it to.
constexpr auto exposure = "With egress through QEMU's own user network the guest can also reach "
                          "every service on this host's loopback (as 10.0.2.2)";

Result<Choice> choose_slirp(const ChoiceInput& input) {
    if (input.programs.user_network.empty())
        return fail(ErrorCode::unsupported,
                    input.host_services
                        ? "The guest cannot be given ports of this host's loopback: the program "
                          "user_network is not installed"
                        : "The program user_network is not installed",
                    install_user_network);
    return Choice{Backend::slirp, {}, {}};
}

Result<Choice> choose_passt(const ChoiceInput& input) {
    if (input.programs.passt.empty())
        return fail(ErrorCode::unsupported, "There is no program passt in PATH",
                    "install it (apt install passt), or use --net user");
    if (!input.programs.passt_problem.empty())
        return fail(
            ErrorCode::unsupported,
            fmt::format("{} is not used: {}", input.programs.passt, input.programs.passt_problem),
            "install a newer one, or use --net user");
    if (input.host_services || input.runner_by_tcp)
        return fail(ErrorCode::invalid_argument,
                    "passt cannot show the guest single ports of this host's loopback",
                    "use --net user");
    if (!input.egress)
        return fail(ErrorCode::invalid_argument, "passt cannot keep the guest from the outside",
                    "use --net user, or add --egress on");
    return Choice{Backend::passt, {}, {}};
}

Choice choose_qemu(const ChoiceInput& input) {
    if (!input.egress)
        return {Backend::qemu, {}, {}};
    return {Backend::qemu, {}, fmt::format("{}; --egress off closes both", exposure)};
}

Result<Choice> choose_by_itself(const ChoiceInput& input) {
    const auto& programs = input.programs;
    if (input.host_services ||
        (input.runner_by_tcp && !(input.egress && programs.user_network.empty())))
        return choose_slirp(input);
    if (!input.egress)
        return choose_qemu(input); // it shows the guest nothing at all
    if (!programs.passt.empty() && programs.passt_problem.empty() && !input.runner_by_tcp)
        return Choice{Backend::passt, "The guest's network goes through passt", {}};
    if (!programs.user_network.empty()) {
        Choice choice{Backend::slirp, "The guest's network goes through user_network", {}};
        if (!programs.passt.empty())
            choice.notice += fmt::format(", not passt: {}", programs.passt_problem);
        return choice;
    }
    return Choice{Backend::qemu,
                  {},
                  fmt::format("{}: {} closes that, and --egress off closes both", exposure,
                              "user_network, which is not installed here,")};
}

} // namespace

std::string_view to_string(Backend backend) noexcept {
    switch (backend) {
    case Backend::none:
        return "none";
    case Backend::qemu:
        return "qemu";
    case Backend::slirp:
        return "slirp";
    case Backend::passt:
        return "passt";
    case Backend::bridge:
        return "bridge";
    }
    return "?";
}

Result<Choice> choose_backend(const ChoiceInput& input) {
    switch (input.network.mode) {
    case spec::NetworkMode::none:
        return Choice{Backend::none, {}, {}};
    case spec::NetworkMode::bridge:
        return Choice{Backend::bridge, {}, {}};
    case spec::NetworkMode::user:
        break;
    }
    switch (input.network.user) {
    case spec::UserNetwork::automatic:
        return choose_by_itself(input);
    case spec::UserNetwork::slirp:
        return choose_slirp(input);
    case spec::UserNetwork::passt:
        return choose_passt(input);
    case spec::UserNetwork::qemu:
        break;
    }
    if (input.runner_by_tcp && !input.egress)
        return fail(ErrorCode::invalid_argument,
                    "The guest of this image cannot reach its runner: QEMU's own user network "
                    "without egress shows it no port of the host",
                    "use --net user");
    return choose_qemu(input);
}

} // namespace host_runner::usernet

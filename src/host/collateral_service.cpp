// SPDX-License-Identifier: Apache-2.0
#include "host_runner/host/collateral_service.hpp"

#include <charconv>
#include <string_view>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "host_runner/base/files.hpp"
#include "host_runner/base/units.hpp"

namespace host_runner::host {

namespace {

constexpr std::string_view config_path = "/etc/sgx_default_qcnl.conf";

tl::unexpected<Error> wrong(std::string_view what) {
    return fail(ErrorCode::corrupt_data, fmt::format("{}: {}", config_path, what),
                R"(give it e.g. "pccs_url": "https://localhost:8081/sgx/certification/v4/")");
}

} // namespace

Result<CollateralService> read_collateral_service(const HostRoot& root) {
    const auto text = read_file(root.path(config_path), 64 * kib);
    if (!text && text.error().code == ErrorCode::not_found)
        return fail(ErrorCode::not_found, fmt::format("{} does not exist", config_path),
                    "install the quote provider library (libsgx-dcap-default-qpl) and name a "
                    "provisioning certificate service (PCCS) there");
    if (!text)
        return tl::unexpected<Error>(text.error());
    const auto json = nlohmann::json::parse(*text, nullptr, false, true);
    if (!json.is_object())
        return wrong("it is no JSON object");
    const auto member = json.find("pccs_url");
    if (member == json.end() || !member->is_string())
        return wrong("it has no text pccs_url");
    CollateralService service;
    service.url = member->get<std::string>();
    std::string_view rest = service.url;
    if (rest.starts_with("https://")) {
        rest.remove_prefix(8);
    } else if (rest.starts_with("http://")) {
        rest.remove_prefix(7);
        service.port = 80;
    } else {
        return wrong("its pccs_url is no http:// or https:// URL");
    }
    auto authority = rest.substr(0, rest.find('/'));
    if (const auto user = authority.rfind('@'); user != std::string_view::npos)
        authority.remove_prefix(user + 1);
    auto colon = authority.rfind(':');
    if (authority.ends_with(']'))
        colon = std::string_view::npos; // an IPv6 address without a port
    if (colon != std::string_view::npos) {
        const auto port = authority.substr(colon + 1);
        const auto parsed = std::from_chars(port.data(), port.data() + port.size(), service.port);
        if (parsed.ec != std::errc() || parsed.ptr != port.data() + port.size())
            return wrong("its pccs_url has no valid port");
        authority = authority.substr(0, colon);
    }
    if (authority.starts_with('[') && authority.ends_with(']'))
        authority = authority.substr(1, authority.size() - 2);
    if (authority.empty())
        return wrong("its pccs_url names no host");
    service.host = authority;
    return service;
}

} // namespace host_runner::host

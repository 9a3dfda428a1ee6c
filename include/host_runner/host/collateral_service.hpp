// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "host_runner/base/error.hpp"
#include "host_runner/host/host_root.hpp"

namespace host_runner::host {

/// Where this host's quote generation service gets the certificates of its processor.
struct CollateralService {
    std::string url;
    std::string host; ///< Of the URL; of an IPv6 address without its brackets.
    std::uint16_t port = 443;
};

/// `pccs_url` of /etc/sgx_default_qcnl.conf (JSON with comments).
/// Source: intel/SGXDataCenterAttestationPrimitives,
/// QuoteGeneration/qcnl/linux/sgx_default_qcnl.conf
/// @errors not_found: no such file, with the remedy; corrupt_data; io_error
[[nodiscard]] Result<CollateralService> read_collateral_service(const HostRoot& root = {});

} // namespace host_runner::host

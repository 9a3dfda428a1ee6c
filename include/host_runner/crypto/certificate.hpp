// SPDX-License-Identifier: Apache-2.0
#pragma once

/// X.509 certificates of servers, over OpenSSL.

#include <chrono>
#include <span>
#include <string>

#include "host_runner/base/error.hpp"

namespace host_runner::crypto {

struct CertificateWithKey {
    std::string certificate_pem; ///< The server's own first, then those that lead to its issuer.
    std::string private_key_pem; ///< PKCS #8, without a password.
};

/// A new key on P-256 and a certificate that it signs for itself, valid from an hour ago on: clocks
/// differ.
/// @param dns_names the first is the subject's name too; at least one, each at most 64 bytes
/// @errors invalid_argument: no name, or one that is no DNS name; internal: OpenSSL cannot
[[nodiscard]] Result<CertificateWithKey>
make_self_signed_certificate(std::span<const std::string> dns_names, std::chrono::hours validity);

/// SHA-256 of the first certificate in DER, as hex: what browsers and `openssl x509 -fingerprint
/// -sha256` show.
/// @errors invalid_argument: there is no certificate in the text
[[nodiscard]] Result<std::string> certificate_fingerprint(const std::string& certificate_pem);

} // namespace host_runner::crypto

// SPDX-License-Identifier: Apache-2.0
#include "host_runner/crypto/certificate.hpp"

#include <algorithm>
#include <array>
#include <memory>
#include <string_view>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <openssl/bio.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>

#include "host_runner/base/delete_by.hpp"
#include "host_runner/crypto/digest.hpp"

namespace host_runner::crypto {

namespace {

using Bio = std::unique_ptr<BIO, DeleteBy<BIO_free_all>>;
using Certificate = std::unique_ptr<X509, DeleteBy<X509_free>>;
using Extension = std::unique_ptr<X509_EXTENSION, DeleteBy<X509_EXTENSION_free>>;
using Key = std::unique_ptr<EVP_PKEY, DeleteBy<EVP_PKEY_free>>;

/// The upper limit of a common name, RFC 5280 appendix A.1, ub-common-name.
constexpr std::size_t max_name_bytes = 64;

tl::unexpected<Error> failed(std::string_view what) {
    std::array<char, 256> text{};
    ERR_error_string_n(ERR_get_error(), text.data(), text.size());
    ERR_clear_error();
    return fail(ErrorCode::internal, fmt::format("{}: OpenSSL says {}", what, text.data()));
}

/// Letters, digits, '-', '_' and '.': nothing that OpenSSL's text form of names takes for more.
bool is_dns_name(const std::string& name) {
    return !name.empty() && name.size() <= max_name_bytes &&
           std::all_of(name.begin(), name.end(), [](unsigned char byte) {
               return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') ||
                      (byte >= '0' && byte <= '9') || byte == '-' || byte == '_' || byte == '.';
           });
}

std::string contents(BIO* bio) {
    char* bytes = nullptr;
    const long size = BIO_get_mem_data(bio, &bytes);
    return size > 0 ? std::string(bytes, static_cast<std::size_t>(size)) : std::string();
}

bool add_extension(X509* certificate, int kind, const std::string& value) {
    const Extension extension(X509V3_EXT_conf_nid(nullptr, nullptr, kind, value.c_str()));
    return extension && X509_add_ext(certificate, extension.get(), -1) == 1;
}

bool set_serial(X509* certificate) {
    // Unique and positive, RFC 5280 section 4.1.2.2.
    std::array<unsigned char, 16> bytes{};
    if (RAND_bytes(bytes.data(), bytes.size()) != 1)
        return false;
    bytes[0] &= 0x7FU;
    const std::unique_ptr<BIGNUM, DeleteBy<BN_free>> number(
        BN_bin2bn(bytes.data(), bytes.size(), nullptr));
    return number &&
           BN_to_ASN1_INTEGER(number.get(), X509_get_serialNumber(certificate)) != nullptr;
}

bool fill(X509* certificate, EVP_PKEY* key, std::span<const std::string> dns_names,
          std::chrono::hours validity) {
    constexpr long hour = 3600;
    constexpr long version_3 = 2; // as it is encoded
    auto* subject = X509_get_subject_name(certificate);
    const auto* common_name = reinterpret_cast<const unsigned char*>(dns_names.front().c_str());
    return X509_set_version(certificate, version_3) == 1 && set_serial(certificate) &&
           X509_gmtime_adj(X509_getm_notBefore(certificate), -hour) != nullptr &&
           X509_gmtime_adj(X509_getm_notAfter(certificate), validity.count() * hour) != nullptr &&
           X509_NAME_add_entry_by_NID(subject, NID_commonName, MBSTRING_UTF8, common_name, -1, -1,
                                      0) == 1 &&
           X509_set_issuer_name(certificate, subject) == 1 &&
           X509_set_pubkey(certificate, key) == 1 &&
           add_extension(certificate, NID_basic_constraints, "critical,CA:FALSE") &&
           add_extension(certificate, NID_key_usage, "critical,digitalSignature") &&
           add_extension(certificate, NID_ext_key_usage, "serverAuth") &&
           add_extension(certificate, NID_subject_alt_name,
                         fmt::format("DNS:{}", fmt::join(dns_names, ",DNS:"))) &&
           X509_sign(certificate, key, EVP_sha256()) != 0;
}

} // namespace

Result<CertificateWithKey> make_self_signed_certificate(std::span<const std::string> dns_names,
                                                        std::chrono::hours validity) {
    if (dns_names.empty())
        return fail(ErrorCode::invalid_argument, "A certificate needs a name");
    for (const auto& name : dns_names)
        if (!is_dns_name(name))
            return fail(ErrorCode::invalid_argument,
                        fmt::format("'{}' is no name for a certificate", name),
                        "letters, digits, '-', '_' and '.', at most 64");
    const Key key(EVP_EC_gen("P-256"));
    const Certificate certificate(X509_new());
    if (!key || !certificate || !fill(certificate.get(), key.get(), dns_names, validity))
        return failed("Cannot make a certificate");
    const Bio certificate_text(BIO_new(BIO_s_mem()));
    // Its memory is wiped: it holds the key.
    const Bio key_text(BIO_new(BIO_s_secmem()));
    if (!certificate_text || !key_text ||
        PEM_write_bio_X509(certificate_text.get(), certificate.get()) != 1 ||
        PEM_write_bio_PKCS8PrivateKey(key_text.get(), key.get(), nullptr, nullptr, 0, nullptr,
                                      nullptr) != 1)
        return failed("Cannot write a certificate");
    return CertificateWithKey{contents(certificate_text.get()), contents(key_text.get())};
}

Result<std::string> certificate_fingerprint(const std::string& certificate_pem) {
    const Bio text(
        BIO_new_mem_buf(certificate_pem.data(), static_cast<int>(certificate_pem.size())));
    const Certificate certificate(PEM_read_bio_X509(text.get(), nullptr, nullptr, nullptr));
    if (!certificate) {
        ERR_clear_error();
        return fail(ErrorCode::invalid_argument, "There is no certificate in the text",
                    "give PEM, which begins with -----BEGIN CERTIFICATE-----");
    }
    std::array<unsigned char, EVP_MAX_MD_SIZE> bytes{};
    unsigned size = 0;
    if (X509_digest(certificate.get(), EVP_sha256(), bytes.data(), &size) != 1)
        return failed("Cannot hash a certificate");
    return to_hex(std::span(bytes.data(), size));
}

} // namespace host_runner::crypto

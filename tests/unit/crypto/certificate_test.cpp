// SPDX-License-Identifier: Apache-2.0
#include "host_runner/crypto/certificate.hpp"

#include <array>
#include <cctype>

#include <gmock/gmock.h>

#include "fakes/temporary_directory.hpp"
#include "host_runner/base/files.hpp"
#include "host_runner/base/process.hpp"

namespace host_runner::crypto {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;
using testing::StartsWith;

const std::array<std::string, 2> names{"site", "localhost"};

/// What the openssl program says of the certificate.
std::string openssl(const tests::TemporaryDirectory& folder, const std::string& certificate,
                    std::vector<std::string> arguments) {
    EXPECT_TRUE(write_file_atomic(folder / "certificate.pem", certificate));
    ProcessSpec spec;
    spec.argv = {"openssl", "x509", "-in", folder / "certificate.pem", "-noout"};
    spec.argv.insert(spec.argv.end(), arguments.begin(), arguments.end());
    ForkExecLauncher launcher;
    const auto output = run_captured(launcher, spec, 30s);
    EXPECT_TRUE(output) << output.error().describe();
    return output->out;
}

TEST(SelfSigned, is_a_certificate_of_a_server_with_its_names) {
    const auto made = make_self_signed_certificate(names, 24h * 365);
    ASSERT_TRUE(made) << made.error().describe();
    EXPECT_THAT(made->private_key_pem, StartsWith("-----BEGIN PRIVATE KEY-----"));
    const tests::TemporaryDirectory folder;
    const auto text = openssl(folder, made->certificate_pem, {"-text"});
    EXPECT_THAT(text, HasSubstr("DNS:site, DNS:localhost"));
    EXPECT_THAT(text, HasSubstr("CA:FALSE"));
    EXPECT_THAT(text, HasSubstr("TLS Web Server Authentication"));
    EXPECT_THAT(text, HasSubstr("CN = site"));
    EXPECT_THAT(openssl(folder, made->certificate_pem, {"-checkend", "3600"}),
                HasSubstr("will not expire"));
}

TEST(SelfSigned, has_a_key_of_its_own_each_time) {
    const auto first = make_self_signed_certificate(names, 1h);
    const auto second = make_self_signed_certificate(names, 1h);
    ASSERT_TRUE(first && second);
    EXPECT_NE(first->private_key_pem, second->private_key_pem);
    EXPECT_NE(*certificate_fingerprint(first->certificate_pem),
              *certificate_fingerprint(second->certificate_pem));
}

TEST(SelfSigned, refuses_what_is_no_name) {
    EXPECT_EQ(make_self_signed_certificate({}, 1h).error().code, ErrorCode::invalid_argument);
    for (const auto& name : {std::string(), std::string("a,DNS:b"), std::string("a b"),
                             std::string("a\n"), std::string(65, 'x')}) {
        const std::array<std::string, 1> one{name};
        EXPECT_EQ(make_self_signed_certificate(one, 1h).error().code, ErrorCode::invalid_argument)
            << name;
    }
}

TEST(Fingerprint, is_the_one_that_openssl_shows) {
    const auto made = make_self_signed_certificate(names, 1h);
    ASSERT_TRUE(made);
    const tests::TemporaryDirectory folder;
    auto shown = openssl(folder, made->certificate_pem, {"-fingerprint", "-sha256"});
    shown = shown.substr(shown.find('=') + 1);
    std::string hex;
    for (const char digit : shown)
        if (digit != ':' && digit != '\n')
            hex += static_cast<char>(std::tolower(static_cast<unsigned char>(digit)));
    EXPECT_EQ(*certificate_fingerprint(made->certificate_pem), hex);
}

TEST(Fingerprint, needs_a_certificate) {
    const auto made = make_self_signed_certificate(names, 1h);
    ASSERT_TRUE(made);
    for (const auto& text : {std::string(), std::string("x"), made->private_key_pem})
        EXPECT_EQ(certificate_fingerprint(text).error().code, ErrorCode::invalid_argument);
}

} // namespace
} // namespace host_runner::crypto

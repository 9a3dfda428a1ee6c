// SPDX-License-Identifier: Apache-2.0
#include "host_runner/crypto/digest.hpp"

#include <cerrno>

#include <fcntl.h>
#include <sys/random.h>
#include <unistd.h>

#include <fmt/format.h>
#include <openssl/evp.h>

#include "host_runner/base/delete_by.hpp"
#include "host_runner/base/unique_fd.hpp"

namespace host_runner::crypto {

namespace {

int hex_digit(char c) noexcept {
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

} // namespace

struct Sha256::State {
    std::unique_ptr<EVP_MD_CTX, DeleteBy<EVP_MD_CTX_free>> context{EVP_MD_CTX_new()};
};

Sha256::Sha256() : state_(std::make_unique<State>()) {
    // SHA-256 is in OpenSSL's default provider, which is always there: a failure is a bug of ours.
    HR_ASSERT(state_->context != nullptr);
    HR_ASSERT(EVP_DigestInit_ex(state_->context.get(), EVP_sha256(), nullptr) == 1);
}

Sha256::Sha256(Sha256&&) noexcept = default;
Sha256& Sha256::operator=(Sha256&&) noexcept = default;
Sha256::~Sha256() = default;

void Sha256::update(std::string_view bytes) {
    HR_ASSERT(EVP_DigestUpdate(state_->context.get(), bytes.data(), bytes.size()) == 1);
}

Sha256Digest Sha256::finish() {
    Sha256Digest digest{};
    HR_ASSERT(EVP_DigestFinal_ex(state_->context.get(), digest.data(), nullptr) == 1);
    return digest;
}

Sha256Digest sha256(std::string_view bytes) {
    Sha256 hash;
    hash.update(bytes);
    return hash.finish();
}

std::string sha256_hex(std::string_view bytes) {
    return to_hex(sha256(bytes));
}

Result<Sha256Digest> sha256_file(const std::string& path) {
    const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd)
        return fail_errno(fmt::format("Cannot open {}", path), errno);
    Sha256 hash;
    std::vector<char> block(1 << 18);
    for (;;) {
        const ssize_t count = ::read(fd.get(), block.data(), block.size());
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return fail_errno(fmt::format("Cannot read {}", path), errno);
        if (count == 0)
            return hash.finish();
        hash.update({block.data(), static_cast<std::size_t>(count)});
    }
}

std::string to_hex(std::span<const std::uint8_t> bytes) {
    constexpr std::string_view digits = "0123456789abcdef";
    std::string text;
    text.reserve(bytes.size() * 2);
    for (const std::uint8_t byte : bytes) {
        text += digits[byte >> 4U];
        text += digits[byte & 0xfU];
    }
    return text;
}

Result<std::vector<std::uint8_t>> from_hex(std::string_view text) {
    if (text.size() % 2 != 0)
        return fail(ErrorCode::invalid_argument,
                    fmt::format("Hex text has an odd length of {}", text.size()));
    std::vector<std::uint8_t> bytes;
    bytes.reserve(text.size() / 2);
    for (std::size_t i = 0; i < text.size(); i += 2) {
        const int high = hex_digit(text[i]);
        const int low = hex_digit(text[i + 1]);
        if (high < 0 || low < 0)
            return fail(
                ErrorCode::invalid_argument,
                fmt::format("Hex text has another character at position {}", high < 0 ? i : i + 1));
        bytes.push_back(static_cast<std::uint8_t>(high * 16 + low));
    }
    return bytes;
}

std::string to_base64(std::span<const std::uint8_t> bytes) {
    // EVP_EncodeBlock also writes a final NUL, for which std::string has room of its own.
    std::string text((bytes.size() + 2) / 3 * 4, '\0');
    EVP_EncodeBlock(reinterpret_cast<unsigned char*>(text.data()), bytes.data(),
                    static_cast<int>(bytes.size()));
    return text;
}

Result<std::vector<std::uint8_t>> from_base64(std::string_view text) {
    const auto bad = [](std::string_view why) {
        return fail(ErrorCode::invalid_argument, fmt::format("Text is not base64: {}", why));
    };
    // EVP_DecodeBlock trims white space and takes '=' anywhere in the last two places as zero
    // bits, so the form is checked here.
    if (text.size() % 4 != 0)
        return bad("its length is not a multiple of 4");
    const std::size_t padding = text.ends_with("==") ? 2 : text.ends_with('=') ? 1 : 0;
    constexpr std::string_view alphabet =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    if (text.substr(0, text.size() - padding).find_first_not_of(alphabet) != std::string_view::npos)
        return bad("it has a character outside the alphabet");
    std::vector<std::uint8_t> bytes(text.size() / 4 * 3);
    if (EVP_DecodeBlock(bytes.data(), reinterpret_cast<const unsigned char*>(text.data()),
                        static_cast<int>(text.size())) < 0)
        return bad("it does not decode");
    bytes.resize(bytes.size() - padding);
    return bytes;
}

std::vector<std::uint8_t> random_bytes(std::size_t count) {
    std::vector<std::uint8_t> bytes(count);
    std::size_t done = 0;
    while (done < count) {
        const ssize_t got = ::getrandom(bytes.data() + done, count - done, 0);
        // Without flags it only fails for EINTR or a bad pointer (getrandom(2)).
        HR_ASSERT(got >= 0 || errno == EINTR);
        if (got > 0)
            done += static_cast<std::size_t>(got);
    }
    return bytes;
}

std::string random_hex(std::size_t byte_count) {
    return to_hex(random_bytes(byte_count));
}

} // namespace host_runner::crypto

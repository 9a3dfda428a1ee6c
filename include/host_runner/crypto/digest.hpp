// SPDX-License-Identifier: Apache-2.0
#pragma once

/// SHA-256 and text encodings, thin over OpenSSL.

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "host_runner/base/error.hpp"

namespace host_runner::crypto {

using Sha256Digest = std::array<std::uint8_t, 32>;

/// Incremental SHA-256: update() any number of times, then finish() once.
class Sha256 {
public:
    Sha256();
    Sha256(Sha256&&) noexcept;
    Sha256& operator=(Sha256&&) noexcept;
    ~Sha256();
    void update(std::string_view bytes);
    [[nodiscard]] Sha256Digest finish();

private:
    struct State;
    std::unique_ptr<State> state_;
};

[[nodiscard]] Sha256Digest sha256(std::string_view bytes);
/// sha256() in lower-case hex (64 characters).
[[nodiscard]] std::string sha256_hex(std::string_view bytes);
/// Of a whole file, read in blocks. @errors as read_file()
[[nodiscard]] Result<Sha256Digest> sha256_file(const std::string& path);

[[nodiscard]] std::string to_hex(std::span<const std::uint8_t> bytes);
/// @errors invalid_argument: odd length or a character that is not a hex digit (both cases taken)
[[nodiscard]] Result<std::vector<std::uint8_t>> from_hex(std::string_view text);
/// Standard alphabet with padding, no line breaks (RFC 4648 section 4).
[[nodiscard]] std::string to_base64(std::span<const std::uint8_t> bytes);
/// @errors invalid_argument
[[nodiscard]] Result<std::vector<std::uint8_t>> from_base64(std::string_view text);

/// From the kernel (getrandom).
[[nodiscard]] std::vector<std::uint8_t> random_bytes(std::size_t count);
[[nodiscard]] std::string random_hex(std::size_t byte_count);

} // namespace host_runner::crypto

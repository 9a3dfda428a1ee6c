// SPDX-License-Identifier: Apache-2.0
#pragma once

/// What a guest asks its runner: POST /api/<Method>?json with a JSON body (dstack's host API, the
/// same for our agent). Encoding and decoding only; hostile bytes give errors, never more.

#include <cstddef>
#include <string>
#include <string_view>

#include "host_runner/base/error.hpp"

namespace host_runner::protocol {

inline constexpr std::string_view api_prefix = "/api/";
/// Larger event payloads are dropped (the request is still answered).
inline constexpr std::size_t max_event_payload_bytes = 4096;
inline constexpr std::size_t max_event_name_bytes = 64;
/// A quote is at most 1 MiB, twice that in hex.
inline constexpr std::size_t max_quote_hex_bytes = 2 << 20;

/// boot.progress, boot.error, instance.info, shutdown.progress; unknown ones are kept and ignored.
struct Event {
    std::string name;
    std::string payload;
};

[[nodiscard]] Result<Event> decode_event(std::string_view json);
[[nodiscard]] std::string encode_event(const Event& event);

struct HostInfo {
    std::string name;    ///< Instance name or id.
    std::string version; ///< host_runner's version.
};
[[nodiscard]] std::string encode_host_info(const HostInfo& info);
[[nodiscard]] Result<HostInfo> decode_host_info(std::string_view json);

/// GetSealingKey's request: the quote as lower- or upper-case hex. @errors invalid_argument
[[nodiscard]] Result<std::string> decode_sealing_key_request(std::string_view json);

/// {"error":"..."}
[[nodiscard]] std::string encode_error(std::string_view message);

} // namespace host_runner::protocol

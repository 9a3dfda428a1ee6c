// SPDX-License-Identifier: Apache-2.0
#include "host_runner/protocol/host_api.hpp"

#include "loose_json.hpp"

namespace host_runner::protocol {

namespace {

/// Above a payload's own cap, so that a guest with a long text is still answered as if it was
/// taken.
constexpr std::size_t max_event_bytes = 1 << 20;
constexpr std::size_t max_info_bytes = 4096;

} // namespace

Result<Event> decode_event(std::string_view json) {
    HR_TRY(const auto object, LooseObject::parse(json, max_event_bytes));
    Event event;
    HR_CHECK(object.read("event", event.name));
    HR_CHECK(object.read("payload", event.payload));
    if (event.name.empty())
        return fail(ErrorCode::invalid_argument, "An event has no name ('event')");
    if (event.name.size() > max_event_name_bytes)
        return fail(ErrorCode::invalid_argument,
                    fmt::format("An event's name has more than {} bytes", max_event_name_bytes));
    return event;
}

std::string encode_event(const Event& event) {
    return dump({{"event", event.name}, {"payload", event.payload}});
}

std::string encode_host_info(const HostInfo& info) {
    return dump({{"name", info.name}, {"version", info.version}});
}

Result<HostInfo> decode_host_info(std::string_view json) {
    HR_TRY(const auto object, LooseObject::parse(json, max_info_bytes));
    HostInfo info;
    HR_CHECK(object.read("name", info.name));
    HR_CHECK(object.read("version", info.version));
    return info;
}

Result<std::string> decode_sealing_key_request(std::string_view json) {
    HR_TRY(const auto object, LooseObject::parse(json, max_quote_hex_bytes + 1024));
    std::string quote;
    HR_CHECK(object.read("quote", quote));
    if (quote.empty() || quote.size() % 2 != 0 || quote.size() > max_quote_hex_bytes ||
        quote.find_first_not_of("0123456789abcdefABCDEF") != std::string::npos)
        return fail(
            ErrorCode::invalid_argument,
            fmt::format("'quote' is not hex text of at most {} bytes", max_quote_hex_bytes));
    return quote;
}

std::string encode_error(std::string_view message) {
    return dump({{"error", message}});
}

} // namespace host_runner::protocol

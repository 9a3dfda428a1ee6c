// SPDX-License-Identifier: Apache-2.0
#include "host_runner/protocol/invocation.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "host_runner/base/units.hpp"
#include "loose_json.hpp"

namespace host_runner::protocol {

namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view magic = "HRIV";
constexpr std::uint8_t frame_version = 1;
constexpr std::size_t version_at = 4, kind_at = 5, call_at = 6, length_at = 14;
constexpr std::uint64_t max_number = std::uint64_t{1} << 62U;
constexpr std::size_t max_name_bytes = 255;
constexpr std::size_t max_message_bytes = 8UL * 1024; // six times that when escaped

constexpr std::array<std::pair<FrameKind, std::string_view>, 13> kinds{
    {{FrameKind::hello, "hello"},
     {FrameKind::ready, "ready"},
     {FrameKind::request, "request"},
     {FrameKind::started, "started"},
     {FrameKind::input, "input"},
     {FrameKind::input_end, "input_end"},
     {FrameKind::input_room, "input_room"},
     {FrameKind::output, "output"},
     {FrameKind::error_output, "error_output"},
     {FrameKind::output_room, "output_room"},
     {FrameKind::result, "result"},
     {FrameKind::cancel, "cancel"},
     {FrameKind::broken, "broken"}}};

constexpr std::array<std::pair<CallStatus, std::string_view>, 11> statuses{
    {{CallStatus::exit, "exit"},
     {CallStatus::trap, "trap"},
     {CallStatus::timeout, "timeout"},
     {CallStatus::oom, "oom"},
     {CallStatus::limit, "limit"},
     {CallStatus::cancelled, "cancelled"},
     {CallStatus::overloaded, "overloaded"},
     {CallStatus::unavailable, "unavailable"},
     {CallStatus::bad_request, "bad_request"},
     {CallStatus::failed, "failed"},
     {CallStatus::lost, "lost"}}};

/// Little-endian.
template <class T>
void put(std::string& bytes, T value) {
    for (std::size_t i = 0; i < sizeof(T); ++i)
        bytes += static_cast<char>(static_cast<unsigned char>(value >> (8 * i)));
}

template <class T>
T get(std::string_view bytes, std::size_t at) {
    T value = 0;
    for (std::size_t i = 0; i < sizeof(T); ++i)
        value |= static_cast<T>(T{static_cast<unsigned char>(bytes[at + i])} << (8 * i));
    return value;
}

struct Header {
    FrameKind kind = FrameKind::broken;
    std::uint64_t call = 0;
    std::size_t length = 0;
};

/// @param bytes at least frame_header_bytes
Result<Header> read_header(std::string_view bytes) {
    if (bytes.substr(0, magic.size()) != magic)
        return fail(ErrorCode::corrupt_data, "The invocation channel carries no frame");
    if (const auto version = get<std::uint8_t>(bytes, version_at); version != frame_version)
        return fail(ErrorCode::corrupt_data,
                    fmt::format("The frame has version {}, not {}", version, frame_version),
                    "runner and image are of different releases");
    const auto kind = get<std::uint8_t>(bytes, kind_at);
    if (kind < 1 || kind > kinds.size())
        return fail(ErrorCode::corrupt_data, fmt::format("There is no frame of kind {}", kind),
                    "runner and image are of different releases");
    Header header{static_cast<FrameKind>(kind), get<std::uint64_t>(bytes, call_at),
                  get<std::uint32_t>(bytes, length_at)};
    if (header.length > max_frame_payload_bytes)
        return fail(ErrorCode::corrupt_data,
                    fmt::format("A frame of {} bytes is above the limit of {}", header.length,
                                max_frame_payload_bytes));
    return header;
}

} // namespace

std::string_view to_string(FrameKind kind) noexcept {
    for (const auto& [value, name] : kinds)
        if (value == kind)
            return name;
    return "";
}

std::string_view to_string(CallStatus status) noexcept {
    for (const auto& [value, name] : statuses)
        if (value == status)
            return name;
    return "";
}

std::string encode_frame(const Frame& frame) {
    HR_ASSERT(frame.payload.size() <= max_frame_payload_bytes);
    std::string bytes;
    bytes.reserve(frame_header_bytes + frame.payload.size());
    bytes += magic;
    put(bytes, frame_version);
    put(bytes, static_cast<std::uint8_t>(frame.kind));
    put(bytes, frame.call);
    put(bytes, static_cast<std::uint32_t>(frame.payload.size()));
    bytes += frame.payload;
    return bytes;
}

Result<Frame> decode_frame(std::string_view message) {
    if (message.size() < frame_header_bytes)
        return fail(ErrorCode::corrupt_data, "The message is too short for a frame");
    HR_TRY(const auto header, read_header(message));
    if (message.size() != frame_header_bytes + header.length)
        return fail(ErrorCode::corrupt_data, "The message is not one whole frame");
    return Frame{header.kind, header.call, message.substr(frame_header_bytes)};
}

void FrameReader::push(std::string_view bytes) {
    // What was read before is given back only when it is most of the buffer, so that many small
    // frames do not move the rest each time.
    if (begin_ > 0 && begin_ >= buffer_.size() / 2) {
        buffer_.erase(0, begin_);
        begin_ = 0;
    }
    buffer_ += bytes;
}

Result<std::optional<Frame>> FrameReader::next() {
    const auto rest = std::string_view(buffer_).substr(begin_);
    if (rest.size() < frame_header_bytes)
        return std::nullopt;
    HR_TRY(const auto header, read_header(rest));
    if (rest.size() < frame_header_bytes + header.length)
        return std::nullopt;
    begin_ += frame_header_bytes + header.length;
    return Frame{header.kind, header.call, rest.substr(frame_header_bytes, header.length)};
}

bool FrameReader::skip_to_ready(std::string_view hello) {
    const auto header = encode_frame({FrameKind::ready, 0, ""}).substr(0, length_at);
    for (auto at = buffer_.find(header, begin_); at != std::string::npos;
         at = buffer_.find(header, at + 1)) {
        const auto payload = at + frame_header_bytes;
        if (buffer_.size() < payload + hello.size()) {
            begin_ = at; // perhaps it is this one: the rest will tell
            return false;
        }
        if (std::string_view(buffer_).substr(payload, hello.size()) == hello) {
            begin_ = at;
            return true;
        }
    }
    // A header may have come in part.
    begin_ = std::max(begin_, buffer_.size() - std::min(buffer_.size(), header.size() - 1));
    return false;
}

std::string encode_session_ready(const SessionReady& ready) {
    return dump({{"agent_version", ready.agent_version}});
}

Result<SessionReady> decode_session_ready(std::string_view json) {
    HR_TRY(const auto object, LooseObject::parse(json, max_frame_payload_bytes));
    SessionReady ready;
    HR_CHECK(object.read("agent_version", ready.agent_version));
    return ready;
}

Result<std::string> encode_invoke_request(const InvokeRequest& request) {
    if (request.arguments.size() > max_call_arguments)
        return fail(ErrorCode::invalid_argument,
                    fmt::format("A call has at most {} arguments, not {}", max_call_arguments,
                                request.arguments.size()));
    if (request.environment.size() > max_call_variables)
        return fail(ErrorCode::invalid_argument,
                    fmt::format("A call has at most {} variables, not {}", max_call_variables,
                                request.environment.size()));
    Json json{{"function", request.function},
              {"arguments", request.arguments},
              {"environment", request.environment},
              {"timeout_ms", request.timeout.count()}};
    if (request.output_bytes)
        json["output_bytes"] = *request.output_bytes;
    auto text = dump(json);
    if (text.size() > max_frame_payload_bytes)
        return fail(ErrorCode::invalid_argument,
                    fmt::format("Arguments and environment of the call have {} bytes as JSON, more "
                                "than {}",
                                text.size(), max_frame_payload_bytes),
                    "give what is large on stdin");
    return text;
}

Result<InvokeRequest> decode_invoke_request(std::string_view json) {
    HR_TRY(const auto value,
           parse_strict(json, {.max_bytes = max_frame_payload_bytes, .max_depth = 3}));
    HR_TRY(auto members, Members::of(value, "the call"));
    InvokeRequest request;
    HR_TRY(request.function, members.text("function", max_name_bytes));
    HR_TRY(const auto* arguments, members.array("arguments", max_call_arguments));
    for (const auto& argument : *arguments) {
        if (!argument.is_string())
            return fail(ErrorCode::invalid_argument, "An argument of the call is no text");
        request.arguments.push_back(argument.get<std::string>());
    }
    HR_TRY(const auto* environment, members.object("environment", max_call_variables));
    for (const auto& [name, text] : environment->items()) {
        if (!text.is_string())
            return fail(ErrorCode::invalid_argument,
                        fmt::format("The variable '{}' of the call is no text", name));
        request.environment[name] = text.get<std::string>();
    }
    HR_TRY(const auto timeout, members.number("timeout_ms", max_number / 1'000'000));
    request.timeout = std::chrono::milliseconds(timeout);
    if (members.has("output_bytes")) {
        HR_TRY(request.output_bytes, members.number("output_bytes", max_number));
    }
    HR_CHECK(members.finish());
    return request;
}

std::string encode_invoke_result(const InvokeResult& result) {
    return dump({{"status", to_string(result.status)},
                 {"code", result.code},
                 {"message", result.message.substr(0, max_message_bytes)},
                 {"output_bytes", result.output_bytes},
                 {"error_output_bytes", result.error_output_bytes},
                 {"truncated", result.truncated},
                 {"duration_us", result.duration.count()},
                 {"memory_peak_bytes", result.memory_peak_bytes}});
}

Result<InvokeResult> decode_invoke_result(std::string_view json) {
    HR_TRY(const auto object, LooseObject::parse(json, max_frame_payload_bytes));
    InvokeResult result;
    std::string status;
    HR_CHECK(object.read("status", status));
    const auto* const found = std::find_if(statuses.begin(), statuses.end(),
                                           [&](const auto& each) { return each.second == status; });
    if (found == statuses.end())
        return fail(ErrorCode::invalid_argument, "The call ended in a way that is not known",
                    "runner and image are of different releases");
    result.status = found->first;
    std::uint8_t code = 0;
    HR_CHECK(object.read("code", code));
    result.code = code;
    HR_CHECK(object.read("message", result.message));
    HR_CHECK(object.read("output_bytes", result.output_bytes));
    HR_CHECK(object.read("error_output_bytes", result.error_output_bytes));
    HR_CHECK(object.read("truncated", result.truncated));
    std::uint64_t duration = 0;
    HR_CHECK(object.read("duration_us", duration));
    result.duration = std::chrono::microseconds(std::min(duration, max_number));
    HR_CHECK(object.read("memory_peak_bytes", result.memory_peak_bytes));
    return result;
}

std::string encode_room(std::uint32_t bytes) {
    std::string payload;
    put(payload, bytes);
    return payload;
}

Result<std::uint32_t> decode_room(std::string_view payload) {
    if (payload.size() != sizeof(std::uint32_t))
        return fail(ErrorCode::corrupt_data, "A frame about room has 4 bytes");
    return get<std::uint32_t>(payload, 0);
}

} // namespace host_runner::protocol
